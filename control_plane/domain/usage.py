"""What a tenant used: counters of two looks become what happened between them.

``busy_ms`` counts statements that still run: the server adds them to its own counter only when
they end, so a query of an hour would otherwise be seen an hour late. And it adds nothing at all
while a session touches no table, until that session ends: then all of it comes at once.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import msgspec

Grain = Literal[1, 15, 1440]
GRAINS: tuple[Grain, ...] = get_args(Grain)
# Kept long enough for the charts made of them: hours, weeks, and more than a year.
KEPT: dict[Grain, dt.timedelta] = {
    1: dt.timedelta(hours=6),
    15: dt.timedelta(days=21),
    1440: dt.timedelta(days=400),
}
_LONGEST_OF_GRAIN: tuple[tuple[Grain, dt.timedelta], ...] = (
    (1, dt.timedelta(hours=6)),
    (15, dt.timedelta(days=7)),
)
# A server flushes the statistics of an idle session after so many seconds.
_FLUSH_SECONDS = 10.0
_MS = 1000.0
_CUMULATIVE_TIMES = ("busy_ms", "idle_in_transaction_ms")
PEAKS = ("connections", "running", "blocked", "pool_waiting", "pool_longest_wait_ms")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in some time: sums, then the most that was seen at once."""

    busy_ms: float = 0.0
    idle_in_transaction_ms: float = 0.0
    sessions: int = 0
    commits: int = 0
    rollbacks: int = 0
    rows_read: int = 0
    rows_fetched: int = 0
    rows_written: int = 0
    temp_bytes: int = 0
    blocks_read: int = 0
    blocks_hit: int = 0
    deadlocks: int = 0
    pooled_transactions: int = 0
    pooled_queries: int = 0
    pooled_query_ms: float = 0.0
    pool_wait_ms: float = 0.0
    connections: int = 0
    running: int = 0
    blocked: int = 0
    pool_waiting: int = 0
    pool_longest_wait_ms: float = 0.0

    @property
    def transactions(self) -> int:
        return self.commits + self.rollbacks

    @property
    def blocks(self) -> int:
        return self.blocks_read + self.blocks_hit

    @property
    def idle(self) -> bool:
        """Whether nothing happened; statistics of the server itself do not count."""
        return self.busy_ms <= 0 and not (self.transactions or self.connections or self.rows_read)


SUMS = tuple(name for name in Usage.__struct_fields__ if name not in PEAKS)


class Counters(msgspec.Struct, frozen=True, array_like=True):
    """One database as its server counts it since ``reset_at``; the last three are of now."""

    reset_at: float
    busy_ms: float
    idle_in_transaction_ms: float
    sessions: int
    commits: int
    rollbacks: int
    rows_read: int
    rows_fetched: int
    rows_written: int
    temp_bytes: int
    blocks_read: int
    blocks_hit: int
    deadlocks: int
    connections: int
    running: int
    blocked: int


class Look(msgspec.Struct, frozen=True, array_like=True):
    """All databases of a server at one moment; ``at`` is the server's clock, in seconds."""

    at: float
    databases: dict[str, Counters]


_MOMENTARY = ("connections", "running", "blocked")
_COUNTED = tuple(
    name
    for name in Counters.__struct_fields__
    if name not in (*_MOMENTARY, *_CUMULATIVE_TIMES, "reset_at")
)


def between(before: Look | None, now: Look) -> dict[str, Usage]:
    """What happened in each database between two looks; nothing can be said of the first.

    A database that is new in ``now`` did all it counts since the look before. Counters that were
    set back, by a crash of the server or on demand, begin at zero again.
    """
    if before is None or now.at <= before.at:
        return {}
    elapsed = now.at - before.at
    return {
        name: _used(before.databases.get(name), held, elapsed)
        for name, held in now.databases.items()
    }


def carried(before: Look | None, now: Look) -> Look:
    """What the next look is compared with.

    Time of a statement that has just ended is missing for up to a few seconds, and must not be
    counted twice when it comes: such a counter is kept where it was.
    """
    if before is None:
        return now
    kept = {name: _kept(before.databases.get(name), held) for name, held in now.databases.items()}
    return Look(now.at, kept)


def total(parts: Iterable[Usage]) -> Usage:
    """The parts together: sums added, of peaks the highest."""
    values: dict[str, float] = dict.fromkeys(Usage.__struct_fields__, 0)
    for part in parts:
        for name in SUMS:
            values[name] += getattr(part, name)
        for name in PEAKS:
            values[name] = max(values[name], getattr(part, name))
    return Usage(**values)  # type: ignore[arg-type]  # every field is a number


def grain_for(span: dt.timedelta) -> Grain:
    """The finest grain that makes a chart of this span readable, and is kept that long."""
    return next((grain for grain, longest in _LONGEST_OF_GRAIN if span <= longest), 1440)


def share(part: float, whole: float) -> float:
    """From 0 to 1; of nothing, nothing."""
    return min(1.0, part / whole) if whole > 0 else 0.0


def _used(before: Counters | None, now: Counters, elapsed: float) -> Usage:
    base = before if before is not None and not _was_reset(before, now) else None
    counted: dict[str, float] = {
        name: getattr(now, name) - (getattr(base, name) if base else 0)
        for name in (*_COUNTED, *_CUMULATIVE_TIMES)
    }
    sessions = max(before.connections if before else 0, now.connections) + counted["sessions"]
    for name in _CUMULATIVE_TIMES:
        # No session is busy for longer than the time that passed, however late it is told.
        most = sessions * (elapsed + _FLUSH_SECONDS) * _MS
        counted[name] = min(max(0.0, counted[name]), most)
    # Those that ran at both looks ran in between, even if the server has not counted it yet.
    ran = min(before.running, now.running) if before is not None else 0
    counted["busy_ms"] = max(counted["busy_ms"], ran * elapsed * _MS)
    levels: Mapping[str, float] = {name: getattr(now, name) for name in _MOMENTARY}
    return Usage(**counted, **levels)  # type: ignore[arg-type]  # every field is a number


def _kept(before: Counters | None, now: Counters) -> Counters:
    if before is None or _was_reset(before, now):
        return now
    marks = {name: max(getattr(before, name), getattr(now, name)) for name in _CUMULATIVE_TIMES}
    return msgspec.structs.replace(now, **marks)


def _was_reset(before: Counters, now: Counters) -> bool:
    return before.reset_at != now.reset_at or any(
        getattr(now, name) < getattr(before, name) for name in _COUNTED
    )
