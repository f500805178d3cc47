"""The end of a tenant's life in the catalog: archived, being deleted, deleted, and back again."""

import datetime as dt
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog import routes
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import WrongState

DeletingFrom = Literal["active", "suspended", "archived"]
EndingKind = Literal["purge", "shred"]
_DATABASE = ", ".join(Database.__struct_fields__)


class Ending(msgspec.Struct, frozen=True):
    """What is on record about a tenant that is archived or being deleted.

    ``delete_after`` is there until its databases are gone, ``shred_after`` from then on.
    """

    archive_backup_id: UUID | None
    deleting_from: DeletingFrom | None
    delete_after: dt.datetime | None
    shred_after: dt.datetime | None
    keep_backups_days: int
    final_backup: bool


class Deletion(msgspec.Struct, frozen=True):
    """How a tenant is to be deleted."""

    grace_seconds: int
    keep_backups_days: int
    final_backup: bool


_ENDING = ", ".join(Ending.__struct_fields__)


async def ending(db: Connection, tenant_id: UUID) -> Ending:
    """How the tenant's life ends, as far as that is known."""
    row = await db.fetchrow(f"SELECT {_ENDING} FROM tenants WHERE id = $1", tenant_id)  # noqa: S608 - the struct's own field names
    if row is None:
        raise TypeError("an operation is about a tenant that was never there")
    return Ending(**dict(row))


async def is_open(db: Connection, tenant_id: UUID) -> bool:
    """Whether the tenant's application gets in: it is active and was not cut off half-way."""
    return bool(
        await db.fetchval(
            """SELECT EXISTS (SELECT FROM tenants t JOIN routes r ON r.tenant_id = t.id
                              WHERE t.id = $1 AND t.state = 'active' AND r.state = 'published')""",
            tenant_id,
        )
    )


async def databases_of(db: Connection, tenant_id: UUID) -> list[Database]:
    """Every database of the tenant that nobody has given up: the primary and those beside it."""
    rows = await db.fetch(
        f"""SELECT {_DATABASE} FROM databases
            WHERE tenant_id = $1 AND purpose <> 'condemned' ORDER BY purpose, id""",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return [Database(**dict(row)) for row in rows]


async def condemned(db: Connection, tenant_id: UUID, server_id: UUID | None = None) -> list[str]:
    """The names of databases of the tenant that are given up and not gone yet."""
    rows = await db.fetch(
        """SELECT name FROM databases WHERE role_set_id = $1 AND purpose = 'condemned'
             AND ($2::uuid IS NULL OR server_id = $2) ORDER BY name""",
        tenant_id,
        server_id,
    )
    return [row["name"] for row in rows]


async def mark_archived(db: Connection, tenant_id: UUID, backup_id: UUID) -> None:
    """The tenant consists of this backup.

    Raises:
        WrongState: it is neither active nor suspended.
    """
    await _expect(
        db,
        """UPDATE tenants SET state = 'archived', archive_backup_id = $2
           WHERE id = $1 AND state IN ('active', 'suspended') RETURNING id""",
        tenant_id,
        backup_id,
    )


async def mark_unarchived(db: Connection, tenant_id: UUID) -> None:
    """An archived tenant is active again; its backup is one like any other.

    Doing it twice is harmless.
    """
    await db.execute(
        """WITH back AS (
               UPDATE tenants t SET state = 'active', archive_backup_id = NULL
               FROM (SELECT id, archive_backup_id FROM tenants WHERE id = $1 FOR UPDATE) before
               WHERE t.id = before.id AND t.state = 'archived'
               RETURNING before.archive_backup_id)
           UPDATE backups b SET pinned = false FROM back WHERE b.id = back.archive_backup_id""",
        tenant_id,
    )


async def unpin(db: Connection, backup_id: UUID) -> None:
    """No tenant consists of this backup; it is one like any other."""
    await db.execute("UPDATE backups SET pinned = false WHERE id = $1", backup_id)


async def mark_deleting(db: Connection, tenant_id: UUID, wanted: Deletion) -> dt.datetime:
    """The tenant's grace begins; when it ends. Doing it twice changes nothing.

    Raises:
        WrongState: the tenant is in no state that can be deleted.
    """
    ends: dt.datetime | None = await db.fetchval(
        """UPDATE tenants SET state = 'deleting', deleting_from = coalesce(
                   CASE WHEN state <> 'deleting' THEN state END, deleting_from),
               delete_after = coalesce(delete_after,
                   clock_timestamp() + make_interval(secs => $2)),
               keep_backups_days = $3, final_backup = $4
           WHERE id = $1 AND state IN ('active', 'suspended', 'archived', 'deleting')
           RETURNING delete_after""",
        tenant_id,
        wanted.grace_seconds,
        wanted.keep_backups_days,
        wanted.final_backup,
    )
    if ends is None:
        raise WrongState("the tenant cannot be deleted any more")
    return ends


async def mark_undeleted(db: Connection, tenant_id: UUID) -> DeletingFrom:
    """The tenant is what it was before its deletion; doing it twice is harmless.

    Raises:
        WrongState: it was not being deleted.
    """
    state: DeletingFrom | None = await db.fetchval(
        """UPDATE tenants SET state = deleting_from, delete_after = NULL
           WHERE id = $1 AND (state = 'deleting' OR state = deleting_from) AND shred_after IS NULL
           RETURNING state""",
        tenant_id,
    )
    if state is None:
        raise WrongState("the tenant is not in the grace of a deletion")
    return state


async def mark_purged(db: Connection, tenant_id: UUID) -> dt.datetime:
    """No database of the tenant is left; when its backups and keys are destroyed.

    Doing it twice changes nothing.
    """
    shred_after: dt.datetime = await db.fetchval(
        """UPDATE tenants SET delete_after = NULL, shred_after = coalesce(shred_after,
                  clock_timestamp() + make_interval(days => keep_backups_days))
           WHERE id = $1 RETURNING shred_after""",
        tenant_id,
    )
    return shred_after


async def has_stored(db: Connection, tenant_id: UUID) -> bool:
    """Whether something of the tenant is in the store, as far as the catalog knows."""
    return bool(
        await db.fetchval(
            """SELECT EXISTS (SELECT FROM backups WHERE tenant_id = $1
                              AND state IN ('running', 'complete', 'corrupt'))
                   OR EXISTS (SELECT FROM exports WHERE tenant_id = $1
                              AND deleted_at IS NULL AND object_key IS NOT NULL)""",
            tenant_id,
        )
    )


async def mark_objects_deleted(db: Connection, tenant_id: UUID) -> None:
    """Nothing of the tenant is in the store any more."""
    for statement in (
        """UPDATE backups SET state = 'pruned', pruned_at = clock_timestamp(), pinned = false
           WHERE tenant_id = $1 AND state IN ('complete', 'corrupt')""",
        """UPDATE exports SET deleted_at = clock_timestamp(),
               state = CASE state WHEN 'ready' THEN 'deleted' ELSE state END
           WHERE tenant_id = $1 AND state IN ('ready', 'failed') AND deleted_at IS NULL""",
    ):
        await db.execute(statement, tenant_id)


async def mark_deleted(db: Connection, tenant_id: UUID) -> None:
    """Nothing of the tenant is left but what the catalog has to remember.

    Its slug and its place in the cell are free, its secrets are gone, its keys of the API end.
    Doing it twice is harmless.
    """
    cell_id: UUID | None = await db.fetchval(
        """UPDATE tenants SET state = 'deleted', labels = '{}'
           WHERE id = $1 AND state = 'deleting' RETURNING cell_id""",
        tenant_id,
    )
    if cell_id is None:
        return
    await routes.leave_cell(db, cell_id)
    for statement in (
        "DELETE FROM credentials WHERE role_set_id = $1",
        "DELETE FROM backup_turns WHERE tenant_id = $1",
        "DELETE FROM backup_schedules WHERE tenant_id = $1",
        """UPDATE api_keys SET revoked_at = clock_timestamp()
           WHERE tenant_id = $1 AND revoked_at IS NULL""",
    ):
        await db.execute(statement, tenant_id)


async def due(
    db: Connection, *, after_failure_minutes: int, limit: int
) -> list[tuple[UUID, EndingKind]]:
    """(tenant, ``purge`` or ``shred``) of deletions whose time has come.

    Not while something else is done to the tenant, not under legal hold, not while it is served
    (an undelete has failed half-way), and not right after the same has failed: what stopped it
    will still be there.
    """
    rows = await db.fetch(
        """SELECT t.id, due.kind FROM tenants t, LATERAL (
               SELECT CASE WHEN t.shred_after IS NULL THEN 'purge' ELSE 'shred' END AS kind) due
           WHERE t.state = 'deleting' AND t.legal_hold IS NULL
             AND coalesce(t.shred_after, t.delete_after) <= clock_timestamp()
             AND NOT EXISTS (SELECT FROM routes r
                             WHERE r.tenant_id = t.id AND r.state = 'published')
             AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                 AND (o.state IN ('pending', 'running', 'waiting', 'cancelling')
                      OR (o.kind = due.kind AND o.state IN ('failed', 'cancelled')
                          AND o.finished_at > clock_timestamp() - make_interval(mins => $1))))
           ORDER BY coalesce(t.shred_after, t.delete_after) LIMIT $2""",
        after_failure_minutes,
        limit,
    )
    return [(row["id"], row["kind"]) for row in rows]


async def _expect(db: Connection, statement: str, tenant_id: UUID, value: UUID) -> None:
    if await db.fetchval(statement, tenant_id, value) is None:
        raise WrongState("the tenant's state has changed meanwhile")
