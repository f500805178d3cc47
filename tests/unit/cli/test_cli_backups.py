"""``tenantry backup``, ``backups`` and ``drills``: what is asked, and how it is shown."""

import datetime as dt
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.output import size
from tests.unit.cli.canned_api import NOW, TOKEN, Answer, CannedApi, operation, page, problem, step
from tests.unit.cli.conftest import Run

ACCEPTED = Answer(202, operation("pending", step("prepare_backup"), kind="backup"))
HASH = "0123456789abcdef" * 4
MINUTE, HOUR, DAY = 60, 3600, 86400


def ago(**distance: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(**distance)).isoformat()


def backup(shown: str, **more: Any) -> dict[str, Any]:
    return {
        "id": shown,
        "tenant": "acme",
        "operation": "op_1",
        "server": "pg-a",
        "cause": "schedule",
        "slot_at": None,
        "state": "complete",
        "created_at": "2026-01-31T08:00:00Z",
        "finished_at": "2026-01-31T08:00:12.5Z",
        "snapshot_at": ago(hours=3.1),
        "verified_at": None,
        "stored_bytes": 1_310_000,
        "plain_bytes": 5_000_000_000,
        "tables": 31,
        "rows": 4200,
        "template": "clinic",
        "schema_revision": "0011",
        "postgres_major": 15,
        "key_version": 1,
        "object_key": "backups/00/11/data.1",
        "manifest_key": "backups/00/11/manifest",
        "sha256": HASH,
        "pinned": False,
        "problem": None,
        **more,
    }


def unfinished(shown: str, state: str, **more: Any) -> dict[str, Any]:
    blank = (
        *("stored_bytes", "plain_bytes", "tables", "rows", "template", "schema_revision"),
        *("postgres_major", "key_version", "object_key", "manifest_key", "sha256", "snapshot_at"),
    )
    return backup(shown, state=state) | dict.fromkeys(blank) | more


def drill(shown: str, **more: Any) -> dict[str, Any]:
    return {
        "id": shown,
        "backup": "bk_1",
        "tenant": "acme",
        "operation": "op_2",
        "server": "pg-b",
        "postgres_major": 18,
        "cause": "rotation",
        "state": "passed",
        "started_at": NOW,
        "finished_at": ago(days=2.1),
        "download_seconds": 1.5,
        "load_seconds": 71.0,
        "compare_seconds": 2.25,
        "rto_seconds": 72.5,
        "tables": 31,
        "rows": 4200,
        "content_hash": HASH,
        "problem": None,
        **more,
    }


def status(slug: str, **more: Any) -> dict[str, Any]:
    return {
        "tenant": slug,
        "tier": "standard",
        "state": "active",
        "policy": "tier",
        "backup": "bk_1",
        "snapshot_at": NOW,
        "stored_bytes": 1,
        "rpo_seconds": 3.0 * HOUR,
        "rpo_minutes": 480,
        "rpo_breached": False,
        "drill": "dr_1",
        "verified_at": ago(days=2.1),
        "verified_seconds": 2.1 * DAY,
        "rto_seconds": 72.5,
        "drill_days": 14,
        "drill_overdue": False,
        "running": None,
        "problem": None,
        **more,
    }


BREACHED = status("beta", rpo_seconds=9.0 * HOUR, rpo_breached=True, problem="the dump broke off")
WORSE = status("zeta", rpo_seconds=2.5 * DAY, rpo_breached=True, backup=None, running="bk_9")
OVERDUE = status("omega", drill_overdue=True, verified_at=None, rto_seconds=None)
ARCHIVED = status("alpha", state="archived", rpo_seconds=None)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("backup", "acme"), "/v1/tenants/acme/backups"),
        (("backups", "verify", "bk_1"), "/v1/backups/bk_1/verifications"),
    ],
)
def test_work_is_asked_for_with_a_key(
    run: Run, canned: CannedApi, arguments: tuple[str, ...], path: str
) -> None:
    canned.on("POST", path, ACCEPTED)

    result = run(*arguments)

    assert (result.code, result.stdout) == (0, "op_1 backup acme pending\n")
    assert (canned.asked[0].body, canned.asked[0].query) == (None, {})
    assert len(canned.asked[0].headers["idempotency-key"]) == 36
    assert run(*arguments, "--json").json == ACCEPTED.body


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("backup", "acme"), "/v1/tenants/acme/backups"),
        (("backups", "verify", "bk_1"), "/v1/backups/bk_1/verifications"),
    ],
)
def test_a_dry_run_prints_the_plan(
    run: Run, canned: CannedApi, arguments: tuple[str, ...], path: str
) -> None:
    plan = {"dry_run": True, "kind": "backup", "tenant": "acme", "steps": ["prepare_backup"]}
    canned.on("POST", path, plan)

    result = run(*arguments, "--dry-run")

    assert canned.asked[0].query == {"dry_run": "true"}
    assert result.stdout.splitlines() == [
        "backup acme would run these steps; nothing was changed:",
        "   1  prepare_backup",
    ]


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (problem(409, "conflict", "no backup store is configured"), 4),
        (problem(404, "not_found", "there is no tenant 'acme'"), 3),
        (problem(403, "denied", "requestBackup needs the role operator"), 6),
    ],
)
def test_a_refusal_has_its_exit_code(
    run: Run, canned: CannedApi, refusal: Answer, code: int
) -> None:
    canned.on("POST", "/v1/tenants/acme/backups", refusal)

    result = run("backup", "acme", "--wait")

    assert (result.code, result.stdout) == (code, "")
    assert result.stderr == f"error: {refusal.body['detail']}\n"


def test_the_backups_of_a_tenant(run: Run, canned: CannedApi) -> None:
    found = (
        unfinished("bk_3", "running", finished_at=None),
        unfinished("bk_2", "failed", problem="no space\nleft"),
        backup("bk_1", verified_at=ago(days=1.2), cause="manual"),
    )
    canned.on("GET", "/v1/tenants/acme/backups", page(*found))

    plain, as_json = run("backups", "list", "acme"), run("backups", "list", "acme", "--json")

    heading, *rows = [re.split(r"  +", line) for line in plain.stdout.splitlines()]
    assert heading[:7] == ["ID", "STATE", "DATA OF", "PROVEN", "PROBLEM", "STORED", "DUMP"]
    assert rows[0][:4] == ["bk_3", "running", "-", "-"]
    assert (rows[1][1], rows[1][4]) == ("failed", "no space left")
    assert rows[2][:7] == ["bk_1", "complete", "3 h ago", "1 d ago", "-", "1.3 MB", "5.00 GB"]
    assert rows[2][7:10] == ["4200", "12.50 s", "manual"]
    assert as_json.json == list(found)


def test_a_tenant_without_backups_is_told_how_to_make_one(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants/acme/backups", page())

    result = run("backups", "list", "acme")

    assert (result.code, result.stdout) == (0, "")
    assert result.stderr == "no backups; make one with: tenantry backup acme\n"


def test_without_a_slug_whoever_is_worst_off_comes_first(run: Run, canned: CannedApi) -> None:
    tenants = (ARCHIVED, BREACHED, status("gamma"), OVERDUE, WORSE)
    canned.on("GET", "/v1/backup-status", page(*tenants))

    plain, as_json = run("backups", "list"), run("backups", "list", "--json")
    two = run("backups", "list", "--limit", "2", "--json").json

    order = ["zeta", "beta", "omega", "alpha", "gamma"]
    heading, *rows = [re.split(r"  +", line) for line in plain.stdout.splitlines()]
    assert heading[:5] == ["TENANT", "RPO", "COULD LOSE", "AT MOST", "RESTORE"]
    assert [row[0] for row in rows] == [one["tenant"] for one in as_json.json] == order
    assert rows[0] == ["zeta", "breached", "2 d", "8 h", "ok", "2 d ago", "14 d",
                       "1 min 12 s", "-", "running bk_9"]  # fmt: skip
    assert rows[1][-2:] == ["the dump broke off", "bk_1"]
    assert rows[2][1:8] == ["ok", "3 h", "8 h", "overdue", "-", "14 d", "-"]
    assert rows[3][1:3] == ["-", "-"]
    assert (plain.code, as_json.stderr) == (0, "")
    assert plain.stderr.splitlines() == [
        "2 of 5 tenants could lose more than their policy allows;",
        "back one up with: tenantry backup zeta",
    ]
    assert [one["tenant"] for one in two] == order[:2]


def on_a_terminal(canned: CannedApi, home: Path, columns: int, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tenantry")), *arguments],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "TENANTRY_URL": canned.url,
            "TENANTRY_TOKEN": TOKEN,
            "TENANTRY_HOME": str(home),
            "COLUMNS": str(columns),
            "TERM": "xterm",
            "PYTHONUTF8": "1",
        },
    )
    assert process.wait(timeout=10) == 0
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    return shown


@pytest.mark.parametrize("columns", [50, 160])
def test_a_breach_is_red_on_a_terminal(canned: CannedApi, tmp_path: Path, columns: int) -> None:
    canned.on("GET", "/v1/backup-status", page(BREACHED, status("gamma")))

    shown = on_a_terminal(canned, tmp_path, columns, "backups", "list")

    red = re.findall(r"\x1b\[(?:\d+;)*31m([^\x1b]*)", shown)
    assert "beta" in {part.strip() for part in red}
    assert "gamma" in shown
    assert "gamma" not in {part.strip() for part in red}


def test_a_backup_is_shown_with_its_drills(run: Run, canned: CannedApi) -> None:
    torn = drill("dr_2", state="failed", problem="table city: 3 rows, not 4", content_hash=None)
    found = backup("bk_1", pinned=True, drills=[torn, drill("dr_1")])
    canned.on("GET", "/v1/backups/bk_1", found)

    plain, as_json = run("backups", "show", "bk_1"), run("backups", "show", "bk_1", "--json")

    assert as_json.json == found
    text, _, ledger = plain.stdout.partition("\n\n")
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    assert facts["size"] == "1.3 MB stored, 5.00 GB as a dump"
    assert facts["content"] == "4200 rows of 31 tables"
    assert (facts["schema"], facts["server"]) == ("clinic 0011", "pg-a, Postgres 15")
    assert (facts["object"], facts["sha256"]) == ("backups/00/11/data.1", HASH)
    assert facts["kept"] == "always: an archived tenant consists of it"
    heading, first, second = [re.split(r"  +", line) for line in ledger.splitlines()]
    assert heading[:5] == ["RESULT", "WHEN", "RTO", "PROBLEM", "DOWNLOAD"]
    assert (first[0], first[3]) == ("failed", "table city: 3 rows, not 4")
    assert second[:4] == ["passed", "2 d ago", "1 min 12 s", "-"]
    assert second[4:7] == ["1.50 s", "1 min 11 s", "2.25 s"]
    assert second[7:] == ["4200", HASH[:12], "rotation", "pg-b (18)"]


def test_a_backup_nobody_restored_says_so(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/backups/bk_1", backup("bk_1", drills=[]))
    canned.on("GET", "/v1/backups/bk_2", unfinished("bk_2", "failed", drills=[]))

    proven, failed = run("backups", "show", "bk_1"), run("backups", "show", "bk_2")

    assert proven.stderr == "never restored; prove it with: tenantry backups verify bk_1\n"
    assert failed.stderr == ""
    assert "size" not in failed.stdout


def test_the_ledger_is_filtered_by_the_api(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/drills", page(drill("dr_1")), page())

    shown = run("drills", "--tenant", "acme", "--limit", "7")
    none = run("drills")

    assert [one.query for one in canned.asked] == [
        {"tenant": "acme", "limit": "7"},
        {"limit": "50"},
    ]
    row = re.split(r"  +", shown.stdout.splitlines()[1])
    assert (row[0], row[1], row[-1], row[-2]) == ("acme", "passed", "bk_1", "pg-b (18)")
    assert none.stdout == ""
    assert "tenantry backups verify" in none.stderr
    assert json.loads(run("drills", "--json").stdout) == []


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, None),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (4_249, "4.2 kB"),
        (1_310_000, "1.3 MB"),
        (2_149_000_000, "2.15 GB"),
        (3_000_000_000_000, "3.00 TB"),
    ],
)
def test_sizes_are_written_for_people(amount: int | None, shown: str | None) -> None:
    assert size(amount) == shown
