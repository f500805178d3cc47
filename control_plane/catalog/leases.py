"""The worker's side of operations: claim, record, wait, fail, all under lease and epoch.

Times are the catalog's. Every statement carries the epoch of the claim, so that a worker that
wakes up after its lease changes nothing (`reliability`: engine rules 1 and 3).
"""

from importlib.resources import files
from uuid import UUID

import msgspec

from control_plane.catalog.operations import from_row, get
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import LeaseLost
from control_plane.domain.operations import Operation, OperationState, Queue


class Lease(msgspec.Struct, frozen=True):
    """The right to work on one operation: valid while nobody claimed a higher epoch."""

    operation_id: UUID
    epoch: int
    seconds: float


class Outcome(msgspec.Struct, frozen=True):
    """How one step ended; ``state`` is ``done`` or ``skipped``."""

    position: int
    state: str
    detail: str | None
    last: bool


class Problem(msgspec.Struct, frozen=True):
    """Why a step did not end: a stable code and a sentence."""

    position: int
    code: str
    message: str


def _sql(name: str) -> str:
    return (files("control_plane.catalog") / "sql" / f"{name}.sql").read_text()


_CLAIM = _sql("claim_operation")
_RECORD_OUTCOME = _sql("record_outcome")
_RECORD_PROBLEM = _sql("record_problem")
_FINISH = _sql("finish_operation")
_DUE = _sql("due_operations")


async def claim(
    db: Connection, operation_id: UUID, *, owner: str, seconds: float
) -> tuple[Operation, Lease] | None:
    """Take a due operation that nobody holds and begin its first unfinished step.

    ``None`` when it is over, not due, held by another worker or unknown.
    """
    row = await db.fetchrow(_CLAIM, operation_id, owner, seconds)
    if row is None:
        return None
    operation = from_row(row)
    return operation, Lease(operation.id, operation.epoch, seconds)


async def extend(db: Connection, lease: Lease) -> None:
    """Heartbeat.

    Raises:
        LeaseLost: another worker claimed the operation, or it is over.
    """
    kept = await db.fetchval(
        """UPDATE operations SET lease_until = clock_timestamp() + make_interval(secs => $3)
           WHERE id = $1 AND epoch = $2 AND lease_owner IS NOT NULL RETURNING true""",
        lease.operation_id,
        lease.epoch,
        lease.seconds,
    )
    if not kept:
        raise _lost(lease)


async def guard(db: Connection, lease: Lease) -> None:
    """Hold the operation's row for this transaction, so that no other worker can claim it.

    Raises:
        LeaseLost: another worker claimed the operation, or it is over.
    """
    held = await db.fetchval(
        """SELECT true FROM operations
           WHERE id = $1 AND epoch = $2 AND lease_owner IS NOT NULL FOR SHARE""",
        lease.operation_id,
        lease.epoch,
    )
    if not held:
        raise _lost(lease)


async def record(db: Connection, lease: Lease, outcome: Outcome) -> OperationState:
    """End a step and begin the next one, or end the operation after the last.

    Returns the operation's state: ``cancelling`` when somebody asked to stop meanwhile; then
    the next step was not begun.

    Raises:
        LeaseLost: another worker claimed the operation.
    """
    state: OperationState | None = await db.fetchval(
        _RECORD_OUTCOME,
        lease.operation_id,
        lease.epoch,
        lease.seconds,
        outcome.position,
        outcome.state,
        outcome.detail,
        outcome.last,
    )
    if state is None:
        raise _lost(lease)
    return state


async def wait(db: Connection, lease: Lease, *, seconds: float, detail: str) -> None:
    """Give the lease back until ``seconds`` from now; the step stays begun.

    Raises:
        LeaseLost: another worker claimed the operation.
    """
    await _leave(db, lease, seconds=seconds, detail=detail, problem=None)


async def retry_later(db: Connection, lease: Lease, problem: Problem, *, seconds: float) -> None:
    """Give the lease back after an error; the step is tried again ``seconds`` from now.

    Raises:
        LeaseLost: another worker claimed the operation.
    """
    await _leave(db, lease, seconds=seconds, detail=None, problem=problem)


async def _leave(
    db: Connection, lease: Lease, *, seconds: float, detail: str | None, problem: Problem | None
) -> None:
    left = await db.fetchval(
        _RECORD_PROBLEM,
        lease.operation_id,
        lease.epoch,
        seconds,
        detail,
        problem.code if problem else None,
        problem.message if problem else None,
    )
    if left is None:
        raise _lost(lease)


async def finish(
    db: Connection, lease: Lease, state: OperationState, problem: Problem | None
) -> None:
    """End the operation as ``failed`` or ``cancelled``.

    Raises:
        LeaseLost: another worker claimed the operation.
    """
    ended = await db.fetchval(
        _FINISH,
        lease.operation_id,
        lease.epoch,
        state,
        problem.position if problem else -1,
        problem.code if problem else None,
        problem.message if problem else None,
    )
    if ended is None:
        raise _lost(lease)


async def due(db: Connection, limit: int) -> list[tuple[UUID, Queue]]:
    """Live operations that nobody holds and whose time has come, oldest first."""
    rows = await db.fetch(_DUE, limit)
    return [(row["id"], row["queue"]) for row in rows]


async def overdue(db: Connection) -> list[Operation]:
    """Live operations past their deadline that were not alerted yet; marks them alerted."""
    rows = await db.fetch(
        """UPDATE operations SET alerted_at = clock_timestamp()
           WHERE state IN ('pending', 'running', 'waiting', 'cancelling')
             AND deadline < clock_timestamp() AND alerted_at IS NULL RETURNING id"""
    )
    return [await get(db, row["id"]) for row in rows]


async def is_past_deadline(db: Connection, operation_id: UUID) -> bool:
    return bool(
        await db.fetchval(
            "SELECT deadline < clock_timestamp() FROM operations WHERE id = $1", operation_id
        )
    )


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"epoch {lease.epoch} of this operation is over; another worker goes on")
