"""The JSON of backups, drills and the status of tenants has exactly the promised words."""

import datetime as dt
from uuid import UUID

import msgspec
import pytest

from control_plane.api.backup_views import (
    BackupStatusView,
    backup_detail_view,
    backup_view,
    drill_view,
    status_view,
)
from control_plane.catalog.backup_ledger import LedgerLine, ListedBackup
from control_plane.catalog.backup_status import BackupStatus

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
KEY = UUID(int=1)
SHOWN = "00000000000000000000000001"

BACKUP = ListedBackup(
    id=KEY,
    tenant_id=KEY,
    operation_id=KEY,
    server_id=KEY,
    cause="schedule",
    slot_at=NOW,
    state="complete",
    key_version=1,
    object_key="backups/1/data.1",
    manifest_key="backups/1/manifest",
    stored_bytes=10,
    plain_bytes=20,
    sha256=b"\x01" * 32,
    tables=3,
    rows=4,
    template="clinic",
    schema_revision="0011",
    server_version=150_020,
    snapshot_at=NOW,
    created_at=NOW,
    finished_at=NOW,
    pinned=False,
    verified_at=None,
    problem=None,
    tenant="acme",
    server="pg-a",
)
DRILL = LedgerLine(
    id=KEY,
    backup_id=KEY,
    tenant_id=KEY,
    operation_id=None,
    server_id=KEY,
    cause="manual",
    state="passed",
    started_at=NOW,
    finished_at=NOW,
    server_version=180_001,
    download_seconds=0.5,
    load_seconds=2.0,
    tenant="acme",
    server="pg-b",
)
STATUS = BackupStatus(
    slug="acme",
    tier="standard",
    state="active",
    policy="tenant",
    backup_id=KEY,
    snapshot_at=NOW,
    stored_bytes=10,
    rpo_seconds=60.0,
    rpo_minutes=480,
    rpo_breached=False,
    drill_id=KEY,
    verified_at=NOW,
    verified_seconds=5.0,
    rto_seconds=2.5,
    drill_days=14,
    drill_overdue=False,
    latest_id=KEY,
    latest_state="complete",
    latest_problem=None,
)


def test_a_backup_has_its_ids_with_their_prefix_and_times_in_utc() -> None:
    document = msgspec.to_builtins(backup_view(BACKUP))
    assert (document["id"], document["operation"]) == (f"bk_{SHOWN}", f"op_{SHOWN}")
    assert document["snapshot_at"] == document["slot_at"] == "2026-11-22T12:00:00Z"
    assert (document["tenant"], document["server"]) == ("acme", "pg-a")
    assert (document["sha256"], document["postgres_major"]) == ("01" * 32, 15)
    ours = {"tenant_id", "operation_id", "server_id", "server_version"}
    assert set(document) == set(BACKUP.__struct_fields__) - ours | {"operation", "postgres_major"}


def test_a_backup_in_the_making_has_no_more_than_its_beginning() -> None:
    bare = msgspec.structs.replace(BACKUP, operation_id=None, sha256=None, server_version=None)
    seen = backup_view(bare)
    assert (seen.operation, seen.sha256, seen.postgres_major) == (None, None, None)


def test_a_backup_is_told_with_its_drills() -> None:
    seen = backup_detail_view(BACKUP, [DRILL])
    assert [drill.id for drill in seen.drills] == [f"dr_{SHOWN}"]
    whole = msgspec.to_builtins(seen)
    whole.pop("drills")
    assert whole == msgspec.to_builtins(backup_view(BACKUP))


def test_the_rto_of_a_drill_is_download_and_load() -> None:
    assert drill_view(DRILL).rto_seconds == 2.5
    assert (drill_view(DRILL).backup, drill_view(DRILL).postgres_major) == (f"bk_{SHOWN}", 18)
    assert drill_view(msgspec.structs.replace(DRILL, load_seconds=None)).rto_seconds is None


@pytest.mark.parametrize(
    ("state", "running", "problem"),
    [
        ("complete", None, None),
        ("pruned", None, None),
        ("running", f"bk_{SHOWN}", None),
        ("failed", None, "it broke"),
        ("corrupt", None, "it broke"),
    ],
)
def test_the_newest_attempt_is_told_while_it_runs_or_when_it_went_wrong(
    state: str, running: str | None, problem: str | None
) -> None:
    status = msgspec.structs.replace(STATUS, latest_state=state, latest_problem="it broke")
    seen = status_view(status)
    assert (seen.running, seen.problem) == (running, problem)


def test_a_tenant_without_anything_has_a_status_all_the_same() -> None:
    blank = dict.fromkeys(("backup_id", "drill_id", "latest_id", "latest_state", "rpo_seconds"))
    seen = status_view(msgspec.structs.replace(STATUS, **blank))
    assert (seen.backup, seen.drill, seen.running, seen.rpo_seconds) == (None,) * 4
    assert (seen.tenant, seen.policy) == ("acme", "tenant")
    assert set(msgspec.to_builtins(seen)) == set(BackupStatusView.__struct_fields__)
