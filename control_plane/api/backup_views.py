"""The JSON of backups, drills, and how well each tenant is protected."""

import datetime as dt
from typing import Literal

import msgspec

from control_plane.catalog.backup_ledger import LedgerLine, ListedBackup
from control_plane.catalog.backup_status import BackupStatus
from control_plane.domain.backups import BackupCause, BackupState, DrillCause
from control_plane.domain.names import show
from control_plane.domain.schedules import PolicySource
from control_plane.domain.tenants import TenantState, Tier

_MAJOR = 10_000


class BackupView(msgspec.Struct, frozen=True):
    """One backup. It holds the tenant's data as of ``snapshot_at``, and nothing later.

    ``verified_at`` is when it was last restored and found equal; ``sha256`` is of the object under
    ``object_key``, which is encrypted, and ``plain_bytes`` is the size of the dump inside.
    """

    id: str
    tenant: str
    operation: str | None
    server: str
    cause: BackupCause
    slot_at: dt.datetime | None
    state: BackupState
    created_at: dt.datetime
    finished_at: dt.datetime | None
    snapshot_at: dt.datetime | None
    verified_at: dt.datetime | None
    stored_bytes: int | None
    plain_bytes: int | None
    tables: int | None
    rows: int | None
    template: str | None
    schema_revision: str | None
    postgres_major: int | None
    key_version: int | None
    object_key: str | None
    manifest_key: str | None
    sha256: str | None
    pinned: bool
    problem: str | None


class BackupPage(msgspec.Struct, frozen=True):
    items: list[BackupView]
    next_cursor: str | None


class DrillView(msgspec.Struct, frozen=True):
    """One line of the ledger: a backup was restored on ``server`` and compared.

    ``rto_seconds`` is what it took to have the data back: download and load. ``content_hash`` is
    over the content of all tables.
    """

    id: str
    backup: str
    tenant: str
    operation: str | None
    server: str
    postgres_major: int
    cause: DrillCause
    state: Literal["passed", "failed"]
    started_at: dt.datetime
    finished_at: dt.datetime
    download_seconds: float | None
    load_seconds: float | None
    compare_seconds: float | None
    rto_seconds: float | None
    tables: int | None
    rows: int | None
    content_hash: str | None
    problem: str | None


class DrillPage(msgspec.Struct, frozen=True):
    items: list[DrillView]
    next_cursor: str | None


class BackupDetailView(BackupView, frozen=True, kw_only=True):
    """One backup with its drills, newest first."""

    drills: list[DrillView]


class BackupStatusView(msgspec.Struct, frozen=True):
    """How well one tenant is protected right now.

    ``rpo_seconds``: what would be lost now, everything since the data of ``backup``; null for a
    tenant that is not served. ``verified_at`` and ``rto_seconds`` are of ``drill``, the newest
    that passed. ``policy`` says whose ``rpo_minutes`` and ``drill_days`` count: the tier's or the
    tenant's own. ``running`` is a backup in the making, ``problem`` why the newest attempt at one
    is no backup.
    """

    tenant: str
    tier: Tier
    state: TenantState
    policy: PolicySource
    backup: str | None
    snapshot_at: dt.datetime | None
    stored_bytes: int | None
    rpo_seconds: float | None
    rpo_minutes: int
    rpo_breached: bool
    drill: str | None
    verified_at: dt.datetime | None
    verified_seconds: float | None
    rto_seconds: float | None
    drill_days: int
    drill_overdue: bool
    running: str | None
    problem: str | None


class BackupStatusPage(msgspec.Struct, frozen=True):
    items: list[BackupStatusView]
    next_cursor: str | None


def backup_view(backup: ListedBackup) -> BackupView:
    """The JSON of a backup in a list."""
    return BackupView(
        id=show("bk", backup.id),
        tenant=backup.tenant,
        operation=show("op", backup.operation_id) if backup.operation_id else None,
        server=backup.server,
        cause=backup.cause,
        slot_at=backup.slot_at,
        state=backup.state,
        created_at=backup.created_at,
        finished_at=backup.finished_at,
        snapshot_at=backup.snapshot_at,
        verified_at=backup.verified_at,
        stored_bytes=backup.stored_bytes,
        plain_bytes=backup.plain_bytes,
        tables=backup.tables,
        rows=backup.rows,
        template=backup.template,
        schema_revision=backup.schema_revision,
        postgres_major=backup.server_version // _MAJOR if backup.server_version else None,
        key_version=backup.key_version,
        object_key=backup.object_key,
        manifest_key=backup.manifest_key,
        sha256=backup.sha256.hex() if backup.sha256 else None,
        pinned=backup.pinned,
        problem=backup.problem,
    )


def backup_detail_view(backup: ListedBackup, drills: list[LedgerLine]) -> BackupDetailView:
    """The JSON of one backup with its part of the ledger."""
    return BackupDetailView(
        **msgspec.structs.asdict(backup_view(backup)),
        drills=[drill_view(drill) for drill in drills],
    )


def drill_view(drill: LedgerLine) -> DrillView:
    """The JSON of a line of the ledger."""
    rto = None
    if drill.download_seconds is not None and drill.load_seconds is not None:
        rto = drill.download_seconds + drill.load_seconds
    return DrillView(
        id=show("dr", drill.id),
        backup=show("bk", drill.backup_id),
        tenant=drill.tenant,
        operation=show("op", drill.operation_id) if drill.operation_id else None,
        server=drill.server,
        postgres_major=drill.server_version // _MAJOR,
        cause=drill.cause,
        state=drill.state,
        started_at=drill.started_at,
        finished_at=drill.finished_at,
        download_seconds=drill.download_seconds,
        load_seconds=drill.load_seconds,
        compare_seconds=drill.compare_seconds,
        rto_seconds=rto,
        tables=drill.tables,
        rows=drill.rows,
        content_hash=drill.content_hash,
        problem=drill.problem,
    )


def status_view(status: BackupStatus) -> BackupStatusView:
    """The JSON of how well a tenant is protected."""
    latest = show("bk", status.latest_id) if status.latest_id else None
    return BackupStatusView(
        tenant=status.slug,
        tier=status.tier,
        state=status.state,
        policy=status.policy,
        backup=show("bk", status.backup_id) if status.backup_id else None,
        snapshot_at=status.snapshot_at,
        stored_bytes=status.stored_bytes,
        rpo_seconds=status.rpo_seconds,
        rpo_minutes=status.rpo_minutes,
        rpo_breached=status.rpo_breached,
        drill=show("dr", status.drill_id) if status.drill_id else None,
        verified_at=status.verified_at,
        verified_seconds=status.verified_seconds,
        rto_seconds=status.rto_seconds,
        drill_days=status.drill_days,
        drill_overdue=status.drill_overdue,
        running=latest if status.latest_state == "running" else None,
        problem=status.latest_problem if status.latest_state in ("failed", "corrupt") else None,
    )
