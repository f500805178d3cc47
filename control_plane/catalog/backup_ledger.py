"""Backups and drills as people see them: with the names of their tenant and server."""

from uuid import UUID

from control_plane.catalog.backups import Backup, Drill
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound
from control_plane.domain.names import show


class ListedBackup(Backup, frozen=True, kw_only=True):
    """A backup, the slug of its tenant and the name of the server it was made on."""

    tenant: str
    server: str


class LedgerLine(Drill, frozen=True, kw_only=True):
    """A drill, the slug of the backup's tenant and the name of the server it was restored on."""

    tenant: str
    server: str


_BACKUPS = f"""
    SELECT {", ".join(f"b.{name}" for name in Backup.__struct_fields__)},
           t.slug AS tenant, s.name AS server
    FROM backups b JOIN tenants t ON t.id = b.tenant_id JOIN servers s ON s.id = b.server_id
"""  # noqa: S608 - the struct's own field names
_DRILLS = f"""
    SELECT {", ".join(f"d.{name}" for name in Drill.__struct_fields__)},
           t.slug AS tenant, s.name AS server
    FROM drills d JOIN tenants t ON t.id = d.tenant_id JOIN servers s ON s.id = d.server_id
"""  # noqa: S608 - the struct's own field names


async def backup(db: Connection, backup_id: UUID) -> ListedBackup:
    """The backup with this id.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(_BACKUPS + " WHERE b.id = $1", backup_id)
    if row is None:
        raise NotFound(f"there is no backup {show('bk', backup_id)}")
    return ListedBackup(**dict(row))


async def page_of_backups(
    db: Connection, tenant_id: UUID, *, before: UUID | None, limit: int
) -> list[ListedBackup]:
    """Up to ``limit`` backups of a tenant in any state, newest first, older than ``before``."""
    rows = await db.fetch(
        _BACKUPS  # noqa: S608 - constants of this module
        + """ WHERE b.tenant_id = $1
                AND ($2::uuid IS NULL OR (b.created_at, b.id) <
                     (SELECT x.created_at, x.id FROM backups x WHERE x.id = $2))
              ORDER BY b.created_at DESC, b.id DESC LIMIT $3""",
        tenant_id,
        before,
        limit,
    )
    return [ListedBackup(**dict(row)) for row in rows]


async def page_of_drills(
    db: Connection, tenant_id: UUID | None, *, before: UUID | None, limit: int
) -> list[LedgerLine]:
    """Up to ``limit`` drills of one tenant or of all, newest first, older than ``before``."""
    rows = await db.fetch(
        _DRILLS  # noqa: S608 - constants of this module
        + """ WHERE ($1::uuid IS NULL OR d.tenant_id = $1)
                AND ($2::uuid IS NULL OR (d.finished_at, d.id) <
                     (SELECT x.finished_at, x.id FROM drills x WHERE x.id = $2))
              ORDER BY d.finished_at DESC, d.id DESC LIMIT $3""",
        tenant_id,
        before,
        limit,
    )
    return [LedgerLine(**dict(row)) for row in rows]


async def drills_of(db: Connection, backup_id: UUID) -> list[LedgerLine]:
    """Every drill of one backup, newest first."""
    rows = await db.fetch(
        _DRILLS + " WHERE d.backup_id = $1 ORDER BY d.finished_at DESC, d.id DESC",
        backup_id,
    )
    return [LedgerLine(**dict(row)) for row in rows]
