"""Backups and the ledger of drills in the catalog."""

import datetime as dt
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.backups import (
    BackupCause,
    BackupState,
    DrillCause,
    Manifest,
    manifest_key,
)
from control_plane.domain.errors import NotFound
from control_plane.domain.names import parse, show


class Backup(msgspec.Struct, frozen=True):
    """One backup as recorded; what describes its object is there from ``complete`` on."""

    id: UUID
    tenant_id: UUID
    operation_id: UUID | None
    server_id: UUID
    cause: BackupCause
    slot_at: dt.datetime | None
    state: BackupState
    key_version: int | None
    object_key: str | None
    manifest_key: str | None
    stored_bytes: int | None
    plain_bytes: int | None
    sha256: bytes | None
    tables: int | None
    rows: int | None
    template: str | None
    schema_revision: str | None
    server_version: int | None
    snapshot_at: dt.datetime | None
    created_at: dt.datetime
    finished_at: dt.datetime | None
    pinned: bool
    verified_at: dt.datetime | None
    problem: str | None


class NewBackup(msgspec.Struct, frozen=True):
    """A backup about to be made."""

    id: UUID
    tenant_id: UUID
    operation_id: UUID
    cause: BackupCause
    slot_at: dt.datetime | None = None
    pinned: bool = False


class Stored(msgspec.Struct, frozen=True):
    """What is in the store once a backup is complete."""

    key_version: int
    object_key: str
    manifest_key: str
    stored_bytes: int
    plain_bytes: int
    sha256: bytes
    tables: int
    rows: int
    template: str
    schema_revision: str
    server_version: int
    snapshot_at: dt.datetime


class Drill(msgspec.Struct, frozen=True):
    """One line of the ledger: a backup was restored and compared."""

    id: UUID
    backup_id: UUID
    tenant_id: UUID
    operation_id: UUID | None
    server_id: UUID
    cause: DrillCause
    state: Literal["passed", "failed"]
    started_at: dt.datetime
    finished_at: dt.datetime
    server_version: int
    download_seconds: float | None = None
    load_seconds: float | None = None
    compare_seconds: float | None = None
    tables: int | None = None
    rows: int | None = None
    content_hash: str | None = None
    problem: str | None = None


_BACKUP = ", ".join(Backup.__struct_fields__)
_DRILL = ", ".join(Drill.__struct_fields__)


def stored(manifest: Manifest) -> Stored:
    """What the catalog keeps of a backup."""
    return Stored(
        key_version=manifest.key_version,
        object_key=manifest.object_key,
        manifest_key=manifest_key(manifest.tenant_id, manifest.backup_id),
        stored_bytes=manifest.stored_bytes,
        plain_bytes=manifest.plain_bytes,
        sha256=manifest.object_sha256,
        tables=len(manifest.content.tables),
        rows=manifest.content.rows,
        template=manifest.template,
        schema_revision=manifest.schema_revision,
        server_version=manifest.server_version,
        snapshot_at=manifest.snapshot_at,
    )


async def insert(db: Connection, wanted: NewBackup) -> None:
    """Record a backup that an operation will make of the tenant's primary database.

    The operation is recorded already. Of two for one slot the second is refused.

    Raises:
        Conflict: the slot has a backup already.
    """
    await db.execute(
        """INSERT INTO backups (id, tenant_id, operation_id, server_id, cause, slot_at, pinned)
           SELECT $1, $2, $3, d.server_id, $4, $5, $6
           FROM databases d WHERE d.tenant_id = $2 AND d.purpose = 'primary'""",
        wanted.id,
        wanted.tenant_id,
        wanted.operation_id,
        wanted.cause,
        wanted.slot_at,
        wanted.pinned,
    )


async def get(db: Connection, backup_id: UUID) -> Backup:
    """The backup with this id.

    Raises:
        NotFound: there is none.
    """
    found = await _find(db, backup_id)
    if found is None:
        raise NotFound(f"there is no backup {show('bk', backup_id)}")
    return found


async def of_operation(db: Connection, operation_id: UUID) -> Backup | None:
    """The backup that this operation makes."""
    row = await db.fetchrow(
        f"SELECT {_BACKUP} FROM backups WHERE operation_id = $1",  # noqa: S608 - the struct's own field names
        operation_id,
    )
    return Backup(**dict(row)) if row else None


async def find(db: Connection, shown: str) -> Backup:
    """The backup with this ``bk_`` id.

    Raises:
        NotFound: there is none.
    """
    key = parse("bk", shown)
    found = await _find(db, key) if key is not None else None
    if found is None:
        raise NotFound(f"there is no backup {shown!r}")
    return found


async def _find(db: Connection, backup_id: UUID) -> Backup | None:
    row = await db.fetchrow(f"SELECT {_BACKUP} FROM backups WHERE id = $1", backup_id)  # noqa: S608 - the struct's own field names
    return Backup(**dict(row)) if row else None


async def newest_complete(db: Connection, tenant_id: UUID) -> Backup | None:
    """The complete backup with the youngest data."""
    row = await db.fetchrow(
        f"""SELECT {_BACKUP} FROM backups WHERE tenant_id = $1 AND state = 'complete'
            ORDER BY snapshot_at DESC, id DESC LIMIT 1""",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return Backup(**dict(row)) if row else None


async def complete_of(db: Connection, tenant_id: UUID) -> list[Backup]:
    """Every complete backup of a tenant, the youngest data first."""
    rows = await db.fetch(
        f"""SELECT {_BACKUP} FROM backups WHERE tenant_id = $1 AND state = 'complete'
            ORDER BY snapshot_at DESC, id DESC""",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return [Backup(**dict(row)) for row in rows]


async def complete(db: Connection, backup_id: UUID, stored: Stored) -> None:
    """The backup is in the store, manifest and all; doing it twice is harmless.

    One that had failed may be complete after all: its operation was tried again.
    """
    values = msgspec.structs.asdict(stored)
    columns = ", ".join(f"{name} = ${place}" for place, name in enumerate(values, start=2))
    await db.execute(
        f"""UPDATE backups SET state = 'complete', finished_at = clock_timestamp(),
                problem = NULL, {columns}
            WHERE id = $1 AND state IN ('running', 'failed')""",  # noqa: S608 - the struct's own field names
        backup_id,
        *values.values(),
    )


async def fail_with_operation(db: Connection, backup_id: UUID) -> None:
    """The operation of a backup has ended in this transaction, and the backup was not made."""
    await db.execute(
        """UPDATE backups b SET state = 'failed', finished_at = clock_timestamp(),
               problem = coalesce(o.error_message, o.kind || ' was ' || o.state)
           FROM operations o
           WHERE b.id = $1 AND o.id = b.operation_id AND b.state = 'running'""",
        backup_id,
    )


async def mark_corrupt(db: Connection, backup_id: UUID, problem: str) -> None:
    """A complete backup was found damaged or missing: it is no longer offered."""
    await db.execute(
        """UPDATE backups SET state = 'corrupt', problem = $2
           WHERE id = $1 AND state = 'complete'""",
        backup_id,
        problem,
    )


async def mark_pruned(db: Connection, backup_id: UUID) -> None:
    """The objects of a backup are gone from the store."""
    await db.execute(
        """UPDATE backups SET state = 'pruned', pruned_at = clock_timestamp()
           WHERE id = $1 AND state IN ('complete', 'corrupt')""",
        backup_id,
    )


async def record_drill(db: Connection, drill: Drill) -> None:
    """Add a line to the ledger; one that passed makes its backup a verified one.

    An operation writes one line, however often it comes here.
    """
    values = msgspec.structs.asdict(drill)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    written = await db.fetchval(
        f"""INSERT INTO drills ({_DRILL}) VALUES ({places})
            ON CONFLICT (operation_id) DO NOTHING RETURNING true""",  # noqa: S608 - the struct's own field names
        *values.values(),
    )
    if written and drill.state == "passed":
        await db.execute(
            "UPDATE backups SET verified_at = $2 WHERE id = $1", drill.backup_id, drill.finished_at
        )
