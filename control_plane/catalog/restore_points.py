"""Where tenants' databases could be taken back to: named points in their servers' WAL."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection


class RestorePoint(msgspec.Struct, frozen=True):
    """A point in the WAL of a server, written before an operation changed a tenant's database."""

    id: UUID
    tenant_id: UUID
    server_id: UUID
    operation_id: UUID | None
    name: str
    lsn: str
    revision: str | None
    created_at: dt.datetime


async def of_operation(db: Connection, operation_id: UUID) -> RestorePoint | None:
    """The point that was recorded before this operation changed anything."""
    row = await db.fetchrow(
        """SELECT id, tenant_id, server_id, operation_id, name, lsn::text AS lsn, revision,
                  created_at
           FROM restore_points WHERE operation_id = $1""",
        operation_id,
    )
    return RestorePoint(**dict(row)) if row else None


async def insert(db: Connection, point: RestorePoint) -> None:
    """Record a point; an operation has only one."""
    await db.execute(
        """INSERT INTO restore_points (id, tenant_id, server_id, operation_id, name, lsn, revision)
           VALUES ($1, $2, $3, $4, $5, $6::text::pg_lsn, $7)
           ON CONFLICT (operation_id) DO NOTHING""",
        point.id,
        point.tenant_id,
        point.server_id,
        point.operation_id,
        point.name,
        point.lsn,
        point.revision,
    )
