"""The clinic's user-facing queries on a realistic clinic: their times, costs and budgets.

The bar is 50 ms for the 95th percentile, in both kinds of plan. Machines differ, so each time is
also given as a multiple of the round trip of ``SELECT 1`` in the same run.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.adapters.postgres_server import Connection
from tests.benchmarks import report
from tests.integration.query_budget.loading import (
    FULL_PATIENTS,
    PROVIDERS,
    LoadedClinic,
    loaded_clinic,
)
from tests.integration.query_budget.measure import PLANS, PlanKind, draw, prepared, table_rows
from tests.integration.query_budget.plans import Cost, excesses, worst_of
from tests.integration.query_budget.registry import Budget, NamedQuery, registered
from tests.integration.tenant_server.postgres_fixture import WITH_TLS

_BAR_SECONDS = 0.050
_ROUND_TRIP = NamedQuery(
    name="select_1",
    shows="Nothing.",
    parameters={"ignored": "integer"},
    budget=Budget(buffers=0, rows=1, removed=0),
    uses=(),
    typical="SELECT 1 AS ignored",
    worst="SELECT 1 AS ignored",
    text="SELECT 1 WHERE :ignored = 1",
)
_COLUMNS = (
    f"{'query':20} {'rows':>5} {'buffers':>7} {'budget':>7}  "
    f"{'p50':>7} {'p95':>7} {'generic p95':>11}  {'SELECT 1':>8} {'ratio':>6}  verdict"
)


@dataclass(frozen=True)
class Measured:
    """Seconds of the runs in each kind of plan, and the worst cost of both."""

    seconds: dict[PlanKind, list[float]]
    worst: Cost
    broken: tuple[str, ...]

    def p95(self, kind: PlanKind) -> float:
        return report.percentile(self.seconds[kind], 0.95)


async def measured(
    admin: Connection, app: Connection, query: NamedQuery, rows: dict[str, int]
) -> Measured:
    """Every run of ``query`` once to warm up, once timed and once explained, in both plans."""
    runs = await draw(admin, query)
    seconds: dict[PlanKind, list[float]] = {}
    costs: list[Cost] = []
    broken: list[str] = []
    for kind in PLANS:
        async with prepared(app, query, runs, kind) as statement:
            await statement.seconds()
            seconds[kind] = await statement.seconds()
            costs.append(await statement.worst())
            broken += [f"{kind} plan: {excess}" for excess in excesses(query, costs[-1], rows)]
        if report.percentile(seconds[kind], 0.95) > _BAR_SECONDS:
            broken.append(f"{kind} plan: p95 is over {_BAR_SECONDS * 1000:.0f} ms")
    return Measured(seconds, worst_of(costs), tuple(broken))


def row(query: NamedQuery, found: Measured, round_trip: float) -> str:
    custom, generic = found.p95("custom"), found.p95("generic")
    ratio = max(custom, generic) / round_trip
    return (
        f"{query.name:20} {found.worst.rows:5} {found.worst.buffers:7} {query.budget.buffers:7}  "
        f"{report.median(found.seconds['custom']) * 1000:7.2f} {custom * 1000:7.2f} "
        f"{generic * 1000:11.2f}  {round_trip * 1000:8.2f} {ratio:6.1f}  "
        f"{'over' if found.broken else 'ok'}"
    )


async def table(clinic: LoadedClinic, queries: Sequence[NamedQuery]) -> None:
    rows = await table_rows(clinic.admin)
    report.line(
        f"{rows['patients.patient']} patients, {rows['bookings.appointment']} appointments, "
        f"{PROVIDERS} providers, loaded in {clinic.load_seconds:.0f} s; times in ms\n"
    )
    report.line(_COLUMNS)
    for query in queries:
        # Beside each query, because what else the machine does changes within seconds.
        one = await measured(clinic.admin, clinic.app, _ROUND_TRIP, rows)
        found = await measured(clinic.admin, clinic.app, query, rows)
        report.line(row(query, found, report.median(one.seconds["custom"])))
        for reason in found.broken:
            report.line(f"    {reason}")


async def measure() -> None:
    report.heading("User-facing queries of a clinic, as the application, typical and worst values")
    async with loaded_clinic(WITH_TLS, FULL_PATIENTS) as clinic:
        await table(clinic, registered())


def main() -> None:
    asyncio.run(measure())
