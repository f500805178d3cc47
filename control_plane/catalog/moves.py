"""Moves in the catalog: what one is made of, how far it is, what proves it."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog import routes
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.catalog.routes import Route
from control_plane.domain.errors import NotFound, WrongState
from control_plane.domain.moves import Comparison, Link, Method, MoveState


class Copied(msgspec.Struct, frozen=True):
    """What the initial copy carried; for ``rested_seconds`` it stood back for others."""

    rows: int
    tables: int
    copy_seconds: float
    index_seconds: float
    rested_seconds: float = 0.0


class Move(msgspec.Struct, frozen=True):
    """One move; ``id`` is that of the operation that began it."""

    id: UUID
    tenant_id: UUID
    state: MoveState
    method: Method | None
    source_database_id: UUID
    target_database_id: UUID
    source_server_id: UUID
    target_server_id: UUID
    pause_budget_ms: int
    keyless: list[str]
    copied: Copied | None
    compared: Comparison | None
    compared_at_switch: Comparison | None
    attempts: int
    put_off: str | None
    fence_lsn: str | None
    begin_lsn: str | None
    snapshot: str | None
    paused_ms: float | None
    created_at: dt.datetime
    switched_at: dt.datetime | None
    ended_at: dt.datetime | None

    @property
    def link(self) -> Link:
        """Replication to the new server, until the switch."""
        return Link(self.id)

    @property
    def way_back(self) -> Link:
        """Replication to the old server, from the switch on."""
        return Link(self.id, back=True)


class NewMove(msgspec.Struct, frozen=True):
    """A move that is asked for; its operation is recorded already."""

    id: UUID
    source: Database
    target: Database
    pause_budget_ms: int


class Switched(msgspec.Struct, frozen=True):
    """What is known at the moment of a switch."""

    fence_lsn: str
    begin_lsn: str
    snapshot: str | None
    paused_ms: float


_MOVE = ", ".join(Move.__struct_fields__)
_OPEN = "state IN ('moving', 'switched', 'reversible')"


async def insert(db: Connection, wanted: NewMove) -> None:
    await db.execute(
        """INSERT INTO moves (id, tenant_id, source_database_id, target_database_id,
                              source_server_id, target_server_id, pause_budget_ms)
           VALUES ($1, $2, $3, $4, $5, $6, $7)""",
        wanted.id,
        wanted.source.tenant_id,
        wanted.source.id,
        wanted.target.id,
        wanted.source.server_id,
        wanted.target.server_id,
        wanted.pause_budget_ms,
    )


async def get(db: Connection, move_id: UUID) -> Move:
    """The move that this operation began.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(f"SELECT {_MOVE} FROM moves WHERE id = $1", move_id)  # noqa: S608 - the struct's own field names
    if row is None:
        raise NotFound("there is no such move")
    return msgspec.convert(dict(row), Move)


async def open_one(db: Connection, tenant_id: UUID) -> Move | None:
    """The move of this tenant that is not over, if any."""
    row = await db.fetchrow(
        f"SELECT {_MOVE} FROM moves WHERE tenant_id = $1 AND {_OPEN}",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return msgspec.convert(dict(row), Move) if row else None


async def of_tenant(db: Connection, tenant_id: UUID, limit: int) -> list[Move]:
    """The newest moves of a tenant."""
    rows = await db.fetch(
        f"SELECT {_MOVE} FROM moves WHERE tenant_id = $1 ORDER BY created_at DESC LIMIT $2",  # noqa: S608 - the struct's own field names
        tenant_id,
        limit,
    )
    return [msgspec.convert(dict(row), Move) for row in rows]


async def every_open(db: Connection) -> list[Move]:
    rows = await db.fetch(f"SELECT {_MOVE} FROM moves WHERE {_OPEN} ORDER BY id")  # noqa: S608 - the struct's own field names
    return [msgspec.convert(dict(row), Move) for row in rows]


async def choose(db: Connection, move_id: UUID, method: Method, keyless: list[str]) -> None:
    """Preflight has chosen how; ``keyless`` tables get another identity meanwhile."""
    await db.execute(
        "UPDATE moves SET method = $2, keyless = $3 WHERE id = $1", move_id, method, keyless
    )


async def record_copied(db: Connection, move_id: UUID, copied: Copied) -> None:
    """What was copied; a copy is at the revision of what it is a copy of."""
    await db.execute(
        "UPDATE moves SET copied = $2, compared = NULL WHERE id = $1",
        move_id,
        msgspec.to_builtins(copied),
    )
    await db.execute(
        """UPDATE databases t SET schema_revision = s.schema_revision
             FROM moves m JOIN databases s ON s.id = m.source_database_id
            WHERE m.id = $1 AND t.id = m.target_database_id""",
        move_id,
    )


async def record_comparison(
    db: Connection, move_id: UUID, found: Comparison, *, at_switch: bool = False
) -> None:
    column = "compared_at_switch" if at_switch else "compared"
    await db.execute(
        f"UPDATE moves SET {column} = $2 WHERE id = $1",  # noqa: S608 - one of two constants
        move_id,
        msgspec.to_builtins(found),
    )


async def put_off(db: Connection, move_id: UUID, reason: str) -> int:
    """A switch was taken back; how many times that has happened now."""
    attempts: int = await db.fetchval(
        "UPDATE moves SET attempts = attempts + 1, put_off = $2 WHERE id = $1 RETURNING attempts",
        move_id,
        reason,
    )
    return attempts


async def is_switched(db: Connection, move_id: UUID) -> bool:
    return bool(
        await db.fetchval("SELECT switched_at IS NOT NULL FROM moves WHERE id = $1", move_id)
    )


async def switch(
    db: Connection, move: Move, operation_id: UUID, done: Switched, *, back: bool = False
) -> None:
    """The compare-and-set: from its commit on the other database is the tenant's, for everybody.

    The route leads there, one generation later, and whatever was paused resumes.

    Raises:
        WrongState: somebody asked to cancel, or the tenant's databases are not as they were.
    """
    state = await db.fetchval("SELECT state FROM operations WHERE id = $1 FOR UPDATE", operation_id)
    if state == "cancelling":
        raise WrongState("the move is being cancelled")
    live, coming = move.source_database_id, move.target_database_id
    if back:
        live, coming = coming, live
    generation = await _swap(db, live, coming)
    await db.execute(
        """UPDATE moves SET state = 'switched', fence_lsn = $2, begin_lsn = $3, snapshot = $4,
                  paused_ms = $5, switched_at = clock_timestamp(), compared_at_switch = NULL
           WHERE id = $1""",
        move.id,
        done.fence_lsn,
        done.begin_lsn,
        done.snapshot,
        done.paused_ms,
    )
    route = await routes.find(db, move.tenant_id)
    if route is not None:
        await _lead(db, route, coming, generation)


async def _swap(db: Connection, live: UUID, coming: UUID) -> int:
    before = await db.fetchval(
        """UPDATE databases SET purpose = 'condemned' WHERE id = $1 AND purpose = 'primary'
           RETURNING generation""",
        live,
    )
    generation: int | None = await db.fetchval(
        """UPDATE databases SET purpose = 'primary', holds_place = false,
                  generation = greatest(generation, $2::bigint + 1)
           WHERE id = $1 AND purpose IN ('moving', 'moved_from') RETURNING generation""",
        coming,
        before,
    )
    # It keeps its place: the tenant may come back.
    kept = await db.fetchval(
        """UPDATE databases SET purpose = 'moved_from', holds_place = true
           WHERE id = $1 RETURNING true""",
        live,
    )
    if before is None or generation is None or not kept:
        raise WrongState("the tenant's databases are not those that the move began with")
    return generation


async def _lead(db: Connection, route: Route, database_id: UUID, generation: int) -> None:
    version = await routes.next_version(db, route.cell_id)
    await db.execute(
        """UPDATE routes SET database_id = $2, generation = $3, version = $4, paused_by = NULL,
                  pause_epoch = NULL, pause_until = NULL, pause_scope = NULL
           WHERE tenant_id = $1""",
        route.tenant_id,
        database_id,
        generation,
        version,
    )


async def change_state(
    db: Connection, move_id: UUID, *, expected: tuple[MoveState, ...], wanted: MoveState
) -> None:
    """Compare-and-set; doing it twice is no error.

    Raises:
        WrongState: the move is in another state.
    """
    done = await db.fetchval(
        """UPDATE moves SET state = $3, ended_at = CASE WHEN $3 IN ('moving', 'switched',
                  'reversible') THEN NULL ELSE coalesce(ended_at, clock_timestamp()) END
           WHERE id = $1 AND (state = ANY($2) OR state = $3) RETURNING true""",
        move_id,
        list(expected),
        wanted,
    )
    if not done:
        raise WrongState(f"the move is in no state that leads to {wanted}")


async def verified_backup(db: Connection, move: Move) -> UUID | None:
    """A complete backup of what the switch led to, restored since and found equal."""
    found: UUID | None = await db.fetchval(
        """SELECT id FROM backups WHERE tenant_id = $1 AND state = 'complete'
              AND snapshot_at > $2 AND verified_at > $2
           ORDER BY snapshot_at DESC LIMIT 1""",
        move.tenant_id,
        move.switched_at,
    )
    return found


async def past_switch(db: Connection, operation_id: UUID) -> bool:
    """Whether this operation has led the tenant's clients to the other database already."""
    return bool(
        await db.fetchval(
            """SELECT EXISTS (
                   SELECT FROM operations o
                     JOIN moves m ON m.tenant_id = o.tenant_id AND m.state = 'switched'
                     JOIN databases d ON d.tenant_id = o.tenant_id AND d.purpose = 'primary'
                    WHERE o.id = $1
                      AND d.id = CASE o.kind WHEN 'move' THEN m.target_database_id
                                             WHEN 'move_reverse' THEN m.source_database_id END)""",
            operation_id,
        )
    )


async def open_among(db: Connection, tenant_ids: list[UUID]) -> frozenset[UUID]:
    """Those of these tenants that have a move which is not over."""
    rows = await db.fetch(
        f"SELECT tenant_id FROM moves WHERE tenant_id = ANY ($1) AND {_OPEN}",  # noqa: S608 - a constant
        tenant_ids,
    )
    return frozenset(row["tenant_id"] for row in rows)
