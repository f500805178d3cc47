"""What PgBouncer did for each tenant since the last look: differences of its totals."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from control_plane.catalog.usage import Pooled
from control_plane.domain.names import SESSION_SUFFIX

_MS = 1000.0


class Totals(msgspec.Struct, frozen=True):
    """Sums since the entry was first used, in PgBouncer's order; times in microseconds."""

    transactions: int
    queries: int
    query_us: int
    wait_us: int


class PoolMeter:
    """The totals of the last look. PgBouncer begins at zero again when it, or an entry, is new."""

    def __init__(self) -> None:
        self._before: dict[str, Totals] | None = None

    def read(
        self,
        stats: Iterable[Mapping[str, Any]],
        pools: Iterable[Mapping[str, Any]],
        tenants: Mapping[str, UUID],
    ) -> list[Pooled]:
        """What was done since the last look, of tenants for whom anything was; first, nothing."""
        now = {str(row["database"]): _totals(row) for row in stats}
        before, self._before = self._before, now
        if before is None:
            return []
        queues = _queues(pools)
        found: dict[UUID, Pooled] = {}
        for name in now.keys() | queues.keys():
            tenant_id = tenants.get(name.removesuffix(SESSION_SUFFIX))
            if tenant_id is None:
                continue
            done = _since(before.get(name), now.get(name))
            one = _pooled(tenant_id, done, queues.get(name, (0, 0.0)))
            found[tenant_id] = _together(found[tenant_id], one) if tenant_id in found else one
        return [one for one in found.values() if one.queries or one.waiting or one.wait_ms]


def _totals(row: Mapping[str, Any]) -> Totals:
    return Totals(
        int(row["total_xact_count"]),
        int(row["total_query_count"]),
        int(row["total_query_time"]),
        int(row["total_wait_time"]),
    )


def _queues(pools: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, float]]:
    """Clients that wait, and for how many milliseconds the first of them does, by entry."""
    found: dict[str, tuple[int, float]] = {}
    for row in pools:
        waiting, longest = found.get(str(row["database"]), (0, 0.0))
        ms = int(row["maxwait"]) * _MS + int(row["maxwait_us"]) / _MS
        found[str(row["database"])] = (waiting + int(row["cl_waiting"]), max(longest, ms))
    return {name: queue for name, queue in found.items() if queue[0]}


def _since(before: Totals | None, now: Totals | None) -> Totals:
    if now is None:
        return Totals(0, 0, 0, 0)
    if before is None or now.queries < before.queries or now.wait_us < before.wait_us:
        return now
    return Totals(
        now.transactions - before.transactions,
        now.queries - before.queries,
        now.query_us - before.query_us,
        now.wait_us - before.wait_us,
    )


def _pooled(tenant_id: UUID, done: Totals, queue: tuple[int, float]) -> Pooled:
    return Pooled(
        tenant_id=tenant_id,
        transactions=done.transactions,
        queries=done.queries,
        query_ms=done.query_us / _MS,
        wait_ms=done.wait_us / _MS,
        waiting=queue[0],
        longest_wait_ms=queue[1],
    )


def _together(one: Pooled, other: Pooled) -> Pooled:
    return Pooled(
        one.tenant_id,
        one.transactions + other.transactions,
        one.queries + other.queries,
        one.query_ms + other.query_ms,
        one.wait_ms + other.wait_ms,
        one.waiting + other.waiting,
        max(one.longest_wait_ms, other.longest_wait_ms),
    )
