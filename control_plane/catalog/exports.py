"""Bundles for customers in the catalog: asked for, ready, gone."""

import datetime as dt
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound
from control_plane.domain.names import parse

ExportState = Literal["running", "ready", "failed", "deleted"]


class Export(msgspec.Struct, frozen=True):
    """One bundle as recorded; what describes its object is there once it was uploaded."""

    id: UUID
    tenant_id: UUID
    operation_id: UUID
    state: ExportState
    recipient: str
    object_key: str | None
    stored_bytes: int | None
    sha256: bytes | None
    tables: int | None
    rows: int | None
    created_by: str
    created_at: dt.datetime
    finished_at: dt.datetime | None
    expires_at: dt.datetime
    deleted_at: dt.datetime | None
    problem: str | None


class NewExport(msgspec.Struct, frozen=True):
    """A bundle about to be made; its object is deleted ``keep_hours`` after the request."""

    id: UUID
    tenant_id: UUID
    operation_id: UUID
    recipient: str
    created_by: str
    keep_hours: int


class Uploaded(msgspec.Struct, frozen=True):
    """The object of a bundle, as it was sent."""

    object_key: str
    stored_bytes: int
    sha256: bytes
    tables: int
    rows: int


_EXPORT = ", ".join(Export.__struct_fields__)


async def insert(db: Connection, wanted: NewExport) -> None:
    """Record a bundle that an operation will make; its operation is recorded already."""
    await db.execute(
        """INSERT INTO exports (id, tenant_id, operation_id, recipient, created_by, expires_at)
           VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(hours => $6))""",
        wanted.id,
        wanted.tenant_id,
        wanted.operation_id,
        wanted.recipient,
        wanted.created_by,
        wanted.keep_hours,
    )


async def find(db: Connection, shown: str) -> Export:
    """The export with this ``ex_`` id.

    Raises:
        NotFound: there is none.
    """
    key = parse("ex", shown)
    row = await db.fetchrow(f"SELECT {_EXPORT} FROM exports WHERE id = $1", key) if key else None  # noqa: S608 - the struct's own field names
    if row is None:
        raise NotFound(f"there is no export {shown!r}")
    return Export(**dict(row))


async def of_operation(db: Connection, operation_id: UUID) -> Export:
    """The export that this operation makes.

    Raises:
        NotFound: it makes none.
    """
    row = await db.fetchrow(f"SELECT {_EXPORT} FROM exports WHERE operation_id = $1", operation_id)  # noqa: S608 - the struct's own field names
    if row is None:
        raise NotFound("the operation makes no export")
    return Export(**dict(row))


async def page(db: Connection, tenant_id: UUID, *, after: UUID | None, limit: int) -> list[Export]:
    """Up to ``limit`` exports of a tenant in any state, newest first, older than ``after``."""
    rows = await db.fetch(
        f"""SELECT {_EXPORT} FROM exports WHERE tenant_id = $1
              AND ($2::uuid IS NULL OR (created_at, id) <
                   (SELECT x.created_at, x.id FROM exports x WHERE x.id = $2))
            ORDER BY created_at DESC, id DESC LIMIT $3""",  # noqa: S608 - the struct's own field names
        tenant_id,
        after,
        limit,
    )
    return [Export(**dict(row)) for row in rows]


async def record_upload(db: Connection, export_id: UUID, uploaded: Uploaded) -> None:
    """The object of the bundle is in the store; whether it can be read back is to be seen."""
    await db.execute(
        """UPDATE exports SET object_key = $2, stored_bytes = $3, sha256 = $4, tables = $5,
               rows = $6 WHERE id = $1""",
        export_id,
        *msgspec.structs.astuple(uploaded),
    )


async def mark_ready(db: Connection, export_id: UUID) -> None:
    """The bundle can be fetched; doing it twice is harmless.

    One that had failed may be ready after all: its operation was tried again.
    """
    await db.execute(
        """UPDATE exports SET state = 'ready', finished_at = clock_timestamp(), problem = NULL,
               deleted_at = NULL
           WHERE id = $1 AND state IN ('running', 'failed')""",
        export_id,
    )


async def fail_with_operation(db: Connection, operation_id: UUID) -> None:
    """The operation of an export has ended in this transaction, and there is no bundle."""
    await db.execute(
        """UPDATE exports e SET state = 'failed', finished_at = clock_timestamp(),
               problem = coalesce(o.error_message, o.kind || ' was ' || o.state)
           FROM operations o
           WHERE o.id = $1 AND e.operation_id = o.id AND e.state = 'running'""",
        operation_id,
    )


async def expired(db: Connection, *, limit: int) -> list[Export]:
    """Exports of which something may be in the store that nobody may fetch any more."""
    rows = await db.fetch(
        f"""SELECT {_EXPORT} FROM exports e WHERE deleted_at IS NULL
              AND (state = 'failed' OR (state = 'ready' AND expires_at <= clock_timestamp()))
              AND NOT EXISTS (SELECT FROM operations o WHERE o.id = e.operation_id
                              AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
            ORDER BY expires_at LIMIT $1""",  # noqa: S608 - the struct's own field names
        limit,
    )
    return [Export(**dict(row)) for row in rows]


async def strays(db: Connection, keys: list[str]) -> list[str]:
    """Those of these keys that are the object of no export that is there or being made."""
    rows = await db.fetch(
        """SELECT key FROM unnest($1::text[]) AS key
           WHERE NOT EXISTS (SELECT FROM exports e WHERE e.object_key = key
                             AND e.state IN ('running', 'ready'))""",
        keys,
    )
    return [row["key"] for row in rows]


async def mark_deleted(db: Connection, export_id: UUID) -> None:
    """Nothing of the export is in the store any more."""
    await db.execute(
        """UPDATE exports SET deleted_at = coalesce(deleted_at, clock_timestamp()),
               state = CASE state WHEN 'ready' THEN 'deleted' ELSE state END
           WHERE id = $1 AND state IN ('ready', 'failed', 'deleted')""",
        export_id,
    )
