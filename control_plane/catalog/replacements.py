"""One database taking another's place: scratch databases that become primaries, and back."""

from uuid import UUID

from control_plane.catalog import servers, upkeep
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection

_DATABASE = ", ".join(Database.__struct_fields__)


async def previous(db: Connection, tenant_id: UUID) -> Database | None:
    """The database that an in-place restore has replaced, as long as it is kept."""
    row = await db.fetchrow(
        f"SELECT {_DATABASE} FROM databases WHERE tenant_id = $1 AND purpose = 'previous'",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return Database(**dict(row)) if row else None


async def hold_place(db: Connection, database_id: UUID) -> None:
    """The place just taken on its server is for this database, which will be a primary there."""
    await db.execute("UPDATE databases SET holds_place = true WHERE id = $1", database_id)


async def let_go_of_place(db: Connection, tenant_id: UUID) -> None:
    """Give back a place that was taken for the kept database, if one was."""
    server_id: UUID | None = await db.fetchval(
        """UPDATE databases SET holds_place = false
           WHERE tenant_id = $1 AND purpose = 'previous' AND holds_place RETURNING server_id""",
        tenant_id,
    )
    if server_id is not None:
        await servers.release(db, server_id)


async def swap(db: Connection, live: Database, coming: Database, *, keep_days: float) -> None:
    """``coming`` serves the tenant from now on, one generation later; ``live`` is kept a while.

    A place that ``live`` had on another server is given back.
    """
    await db.execute(
        """UPDATE databases SET purpose = 'scratch', kept_until = NULL
           WHERE id = $1 AND purpose IN ('scratch', 'previous')""",
        coming.id,
    )
    await db.execute(
        """UPDATE databases SET purpose = 'previous',
               kept_until = clock_timestamp() + make_interval(secs => $2::float8 * 86400)
           WHERE id = $1 AND purpose = 'primary'""",
        live.id,
        keep_days,
    )
    await upkeep.remember_line(db, live)
    await upkeep.follow_line(db, coming)
    await become_primary(db, coming.id, max(live.generation, coming.generation) + 1)
    if live.server_id != coming.server_id:
        await servers.release(db, live.server_id)


async def become_primary(db: Connection, database_id: UUID, generation: int) -> None:
    """A scratch database serves its tenant from now on; a place it held is simply its own."""
    await db.execute(
        """UPDATE databases SET purpose = 'primary', generation = $2, holds_place = false
           WHERE id = $1 AND purpose = 'scratch'""",
        database_id,
        generation,
    )


async def change_roles(db: Connection, database_id: UUID, role_set_id: UUID) -> None:
    """Everything in the database belongs to these roles now."""
    await db.execute(
        "UPDATE databases SET role_set_id = $2 WHERE id = $1", database_id, role_set_id
    )


async def describe(
    db: Connection, database_id: UUID, *, template: str, content: str, revision: str
) -> None:
    """What was loaded into a scratch database: its template, that one's content, its revision."""
    await db.execute(
        """UPDATE databases SET template = $2, template_fingerprint = $3, schema_revision = $4
           WHERE id = $1 AND purpose = 'scratch'""",
        database_id,
        template,
        content,
        revision,
    )
