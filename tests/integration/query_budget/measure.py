"""Runs of a query as the application's login, in both kinds of plan."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from control_plane.adapters.postgres_server import Connection
from tests.integration.query_budget.plans import Cost, cost, worst_of
from tests.integration.query_budget.registry import NamedQuery

PlanKind = Literal["custom", "generic"]
PLANS: tuple[PlanKind, ...] = ("custom", "generic")
TYPICAL_RUNS = 20
WORST_RUNS = 10

_TABLE_ROWS = """
SELECT CAST(relnamespace AS regnamespace) || '.' || quote_ident(relname), CAST(reltuples AS bigint)
  FROM pg_class WHERE relkind IN ('r', 'm', 'p')
"""


@dataclass(frozen=True)
class Prepared:
    """A query that a session has prepared; ``runs`` are EXECUTE statements, typical ones first."""

    connection: Connection
    runs: tuple[str, ...]

    async def worst(self) -> Cost:
        """What the worst run cost."""
        return worst_of([await self._explain(run) for run in self.runs])

    async def _explain(self, run: str) -> Cost:
        answer = await self.connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, VERBOSE, TIMING off, FORMAT JSON) {run}"
        )
        return cost(json.loads(answer)[0]["Plan"])

    async def seconds(self) -> list[float]:
        """How long each run took, seen from here: planning, execution, the way there and back."""
        taken = []
        for run in self.runs:
            began = time.perf_counter()
            await self.connection.execute(run)
            taken.append(time.perf_counter() - began)
        return taken


async def draw(admin: Connection, query: NamedQuery) -> tuple[str, ...]:
    """The EXECUTE statements of ``query``: values as its header draws them from the data."""
    columns = ", ".join(f"quote_nullable(CAST({name} AS text))" for name in query.parameters)
    runs = []
    for source, count in ((query.typical, TYPICAL_RUNS), (query.worst, WORST_RUNS)):
        rows = await admin.fetch(
            f"SELECT concat_ws(', ', {columns}) FROM ({source} LIMIT {count}) AS drawn"  # noqa: S608 - our own text
        )
        assert rows, f"{query.name}: nothing to draw from: {source}"
        runs += [f"EXECUTE query ({rows[n % len(rows)][0]})" for n in range(count)]
    return tuple(runs)


@asynccontextmanager
async def prepared(
    app: Connection, query: NamedQuery, runs: tuple[str, ...], kind: PlanKind
) -> AsyncIterator[Prepared]:
    """``query`` prepared in a transaction that is rolled back."""
    types = ", ".join(query.parameters.values())
    await app.execute(f"PREPARE query ({types}) AS {query.numbered}")
    transaction = app.transaction()
    await transaction.start()
    try:
        # The plan is chosen at EXECUTE.
        await app.execute(f"SET LOCAL plan_cache_mode = force_{kind}_plan")
        yield Prepared(app, runs)
    finally:
        await transaction.rollback()
        await app.execute("DEALLOCATE query")


async def table_rows(connection: Connection) -> dict[str, int]:
    """The rows of every table and materialised view, by the statistics."""
    return {row[0]: row[1] for row in await connection.fetch(_TABLE_ROWS)}
