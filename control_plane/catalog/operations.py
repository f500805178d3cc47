"""Operations in the catalog: everything but the worker's side, which is in ``leases``."""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog import moves
from control_plane.catalog.pool import Connection, Record
from control_plane.domain.errors import Conflict, NotFound, OperationInProgress, WrongState
from control_plane.domain.names import parse, show
from control_plane.domain.operations import Operation, Step
from control_plane.domain.plans import Plan

CHANNEL = "tenantry_operations"
_AFTER_A_MOVE = frozenset({"migrate", "restore", "restore_undo", "archive", "delete"})

_COLUMNS = ", ".join(f"o.{name}" for name in Operation.__struct_fields__ if name != "steps")
_SELECT = f"""
    SELECT {_COLUMNS},
           coalesce((SELECT jsonb_agg(jsonb_build_object(
               'name', s.name, 'state', s.state, 'attempts', s.attempts,
               'started_at', s.started_at, 'finished_at', s.finished_at, 'detail', s.detail,
               'error_code', s.error_code, 'error_message', s.error_message) ORDER BY s.position)
             FROM steps s WHERE s.operation_id = o.id), '[]') AS steps
    FROM operations o
"""  # noqa: S608 - the struct's own field names


class NewOperation(msgspec.Struct, frozen=True):
    """What a service asks for; the plan gives the steps, the queue and the deadline."""

    id: UUID
    plan: Plan
    subject: str
    actor: str
    tenant_id: UUID | None = None
    server_id: UUID | None = None
    database_id: UUID | None = None
    input: dict[str, object] = {}


async def insert(db: Connection, wanted: NewOperation) -> Operation:
    """Record an operation with all its steps.

    Raises:
        OperationInProgress: another operation of this tenant, database or server is alive.
        Conflict: a move of the tenant has to be finished or reversed first.
    """
    try:
        async with db.transaction():
            await _insert(db, wanted)
    except Exception as error:
        if getattr(error, "sqlstate", None) != "23505":
            raise
        raise await _in_progress(db, wanted) from error
    if wanted.plan.kind in _AFTER_A_MOVE and wanted.tenant_id is not None:
        await _require_moved(db, wanted)
    return await get(db, wanted.id)


async def _require_moved(db: Connection, wanted: NewOperation) -> None:
    """What changes the schema or the database itself would cut the way back of a move."""
    if wanted.tenant_id and await moves.open_one(db, wanted.tenant_id) is not None:
        raise Conflict(
            f"{wanted.subject} can still go back from its move; first: tenantry move finish "
            f"{wanted.subject} (or move reverse)"
        )


async def _insert(db: Connection, wanted: NewOperation) -> None:
    await db.execute(
        """WITH operation AS (
               INSERT INTO operations (id, kind, subject, queue, tenant_id, server_id, database_id,
                                       input, actor, deadline)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() + $10::interval)
               RETURNING id)
           INSERT INTO steps (operation_id, position, name)
           SELECT operation.id, step.position - 1, step.name
           FROM operation, unnest($11::text[]) WITH ORDINALITY AS step (name, position)""",
        wanted.id,
        wanted.plan.kind,
        wanted.subject,
        wanted.plan.queue,
        wanted.tenant_id,
        wanted.server_id,
        wanted.database_id,
        wanted.input,
        wanted.actor,
        wanted.plan.deadline,
        list(wanted.plan.steps),
    )


async def _in_progress(db: Connection, wanted: NewOperation) -> Conflict:
    row = await db.fetchrow(
        """SELECT id, kind FROM operations
           WHERE state IN ('pending', 'running', 'waiting', 'cancelling')
             AND (tenant_id = $1 OR (tenant_id IS NULL AND database_id = $2)
                  OR (kind = 'enrol' AND server_id = $3)
                  OR (kind = 'rekey' AND kind = $4)
                  OR (kind IN ('create_server', 'delete_server')
                      AND input ->> 'provided' = $5)) LIMIT 1""",
        wanted.tenant_id,
        wanted.database_id,
        wanted.server_id,
        wanted.plan.kind,
        wanted.input.get("provided"),
    )
    if row is None:
        return Conflict(f"another operation of {wanted.subject} has just ended; try again")
    shown = show("op", row["id"])
    return OperationInProgress(
        f"{wanted.subject} is busy: {row['kind']} {shown} is in progress; wait for it or cancel it",
        operation=shown,
    )


async def get(db: Connection, operation_id: UUID) -> Operation:
    """The operation with its steps.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(_SELECT + " WHERE o.id = $1", operation_id)
    if row is None:
        raise NotFound(f"there is no operation {show('op', operation_id)}")
    return from_row(row)


def from_row(row: Record) -> Operation:
    """An operation from a row that carries ``steps`` as a JSON array."""
    values = dict(row)
    values["steps"] = tuple(msgspec.convert(step, Step) for step in values["steps"])
    return Operation(**values)


async def page(
    db: Connection,
    *,
    before: UUID | None,
    limit: int,
    tenant_id: UUID | None = None,
    state: str | None = None,
) -> list[Operation]:
    """Up to ``limit`` operations, newest first, older than the operation ``before``."""
    rows = await db.fetch(
        _SELECT  # noqa: S608 - constants of this module
        + """ WHERE ($1::uuid IS NULL OR (o.created_at, o.id) <
                     (SELECT x.created_at, x.id FROM operations x WHERE x.id = $1))
                AND ($3::uuid IS NULL OR o.tenant_id = $3)
                AND ($4::text IS NULL OR o.state = $4)
              ORDER BY o.created_at DESC, o.id DESC LIMIT $2""",
        before,
        limit,
        tenant_id,
        state,
    )
    return [from_row(row) for row in rows]


async def several(db: Connection, operation_ids: Sequence[UUID]) -> dict[UUID, Operation]:
    """These operations by id; those that there are not are left out."""
    rows = await db.fetch(_SELECT + " WHERE o.id = ANY ($1)", list(operation_ids))
    return {row["id"]: from_row(row) for row in rows}


async def select_operations(db: Connection, rest: str, *values: object) -> list[Record]:
    """Rows for ``from_row``; ``rest`` is what follows the FROM clause of operations ``o``."""
    return await db.fetch(f"{_SELECT} {rest}", *values)


async def newest_of_server(db: Connection, server_id: UUID, kind: str) -> Operation | None:
    """The operation of this kind that was begun last on this server."""
    row = await db.fetchrow(
        _SELECT + " WHERE o.server_id = $1 AND o.kind = $2 ORDER BY o.created_at DESC LIMIT 1",
        server_id,
        kind,
    )
    return from_row(row) if row is not None else None


async def newest_of_database(db: Connection, database_id: UUID, kind: str) -> Operation | None:
    """The operation of this kind that was begun last on this database."""
    row = await db.fetchrow(
        _SELECT + " WHERE o.database_id = $1 AND o.kind = $2 ORDER BY o.created_at DESC LIMIT 1",
        database_id,
        kind,
    )
    return from_row(row) if row is not None else None


async def live_ids(db: Connection) -> list[UUID]:
    """Every operation that is not over."""
    rows = await db.fetch(
        """SELECT id FROM operations
           WHERE state IN ('pending', 'running', 'waiting', 'cancelling')"""
    )
    return [row["id"] for row in rows]


async def tenants_wait(db: Connection, server_id: UUID) -> bool:
    """Whether a tenant is being provisioned on this server right now."""
    return bool(
        await db.fetchval(
            """SELECT EXISTS (SELECT FROM operations o
               JOIN databases d ON d.tenant_id = o.tenant_id AND d.purpose = 'primary'
               WHERE d.server_id = $1 AND o.kind = 'provision'
                 AND o.state IN ('pending', 'running'))""",
            server_id,
        )
    )


async def failed_lately(
    db: Connection, server_id: UUID, kind: str, *, minutes: int, content: str | None = None
) -> bool:
    """Whether an operation of this kind failed on this server within the last ``minutes``.

    ``content`` asks only for those that were about this version of a template.
    """
    return bool(
        await db.fetchval(
            """SELECT EXISTS (SELECT FROM operations
               WHERE server_id = $1 AND kind = $2 AND state = 'failed'
                 AND ($4::text IS NULL OR input ->> 'content' = $4)
                 AND finished_at > clock_timestamp() - make_interval(mins => $3))""",
            server_id,
            kind,
            minutes,
            content,
        )
    )


async def problem_since(
    db: Connection, server_id: UUID, kind: str, content: str, since: dt.datetime
) -> str | None:
    """Why the newest operation of this kind, about this template version, failed after ``since``.

    ``None`` when there is none, or it is alive, or it succeeded.
    """
    problem: str | None = await db.fetchval(
        """SELECT CASE state WHEN 'failed' THEN error_message END FROM operations
           WHERE server_id = $1 AND kind = $2 AND input ->> 'content' = $3 AND created_at >= $4
           ORDER BY created_at DESC LIMIT 1""",
        server_id,
        kind,
        content,
        since,
    )
    return problem


async def request_cancel(db: Connection, operation_id: UUID, plan: Plan) -> Operation:
    """Ask a live operation to stop; a worker carries it out at the next step boundary.

    Raises:
        WrongState: it is over, or past the step from which only forward is safe.
    """
    await db.execute("SELECT FROM operations WHERE id = $1 FOR UPDATE", operation_id)
    operation = await get(db, operation_id)
    if not operation.live:
        raise WrongState(
            f"{operation.kind} {operation.subject} is {operation.state} already; "
            "only work in progress can be cancelled"
        )
    begun = {step.name for step in operation.steps if step.state != "pending"}
    if plan.cancellable_until in begun or await moves.past_switch(db, operation_id):
        raise WrongState(
            f"{operation.kind} is past {plan.cancellable_until} and only goes forward now"
        )
    await db.execute(
        """UPDATE operations SET state = 'cancelling', due_at = clock_timestamp()
           WHERE id = $1""",
        operation_id,
    )
    await _tell_watchers(db, operation_id)
    return await get(db, operation_id)


async def request_retry(db: Connection, operation: Operation, plan: Plan) -> Operation:
    """Let a failed operation go on at the step that failed, with a new deadline.

    Raises:
        WrongState: it has not failed, or the world has moved on since: what it was to change
            was given up, or a later operation has worked on it.
        OperationInProgress: another operation of the tenant is alive.
    """
    if operation.state != "failed":
        raise WrongState(f"the operation is {operation.state}; only a failed one can be retried")
    try:
        async with db.transaction():
            await db.execute(
                """UPDATE operations SET state = 'pending', finished_at = NULL, error_code = NULL,
                       error_message = NULL, alerted_at = NULL, due_at = clock_timestamp(),
                       deadline = clock_timestamp() + $2::interval WHERE id = $1
                          AND state = 'failed'""",
                operation.id,
                plan.deadline,
            )
            await db.execute(
                """UPDATE steps SET state = 'pending', finished_at = NULL, attempts = 0
                   WHERE operation_id = $1 AND state = 'failed'""",
                operation.id,
            )
            await _refuse_outlived(db, operation)
            await _refuse_given_up(db, operation)
    except Exception as error:
        if getattr(error, "sqlstate", None) != "23505":
            raise
        raise OperationInProgress(f"{operation.subject} is busy with another operation") from error
    await _tell_watchers(db, operation.id)
    return await get(db, operation.id)


async def tell(db: Connection, operation_id: UUID, detail: str) -> None:
    """Say how far an operation's running step has come; watchers hear of it."""
    await db.execute(
        "UPDATE steps SET detail = $2 WHERE operation_id = $1 AND state = 'running'",
        operation_id,
        detail,
    )
    await _tell_watchers(db, operation_id)


async def _tell_watchers(db: Connection, operation_id: UUID) -> None:
    """Whoever follows the operation looks again once this transaction is committed."""
    await db.execute("SELECT pg_notify($1, $2)", CHANNEL, str(operation_id))


async def _refuse_outlived(db: Connection, operation: Operation) -> None:
    """Its remaining steps were meant for the state it left behind, and for no other."""
    if await db.fetchval(
        "SELECT state = 'deleted' FROM tenants WHERE id = $1", operation.tenant_id
    ):
        raise WrongState(f"{operation.subject} was given up; create it again")
    later = await db.fetchrow(
        """SELECT id, kind FROM operations
           WHERE (created_at, id) > ($1, $2)
             AND (tenant_id = $3 OR (tenant_id IS NULL AND database_id = $4))
           ORDER BY created_at DESC LIMIT 1""",
        operation.created_at,
        operation.id,
        operation.tenant_id,
        operation.database_id,
    )
    if later is not None:
        raise WrongState(
            f"{later['kind']} {show('op', later['id'])} came after this {operation.kind}; "
            "begin a new one instead of going on with it"
        )


async def _refuse_given_up(db: Connection, operation: Operation) -> None:
    """A restore that failed has given its scratch database up; what had replaced one goes on."""
    key = parse("db", str(operation.input.get("scratch")))
    if key is None:
        return
    purpose = await db.fetchval("SELECT purpose FROM databases WHERE id = $1", key)
    made = any(step.name == "create_scratch" and step.state == "done" for step in operation.steps)
    recorded = operation.kind in ("restore", "restore_beside", "unarchive")
    if purpose == "condemned" or (purpose is None and (made or recorded)):
        raise WrongState(f"what this {operation.kind} had restored was given up; begin a new one")
