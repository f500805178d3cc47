"""``tenantry restore``: a command and a group at once, and what it asks before it acts."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.canned_api import TOKEN, Answer, CannedApi, operation, page, step, tenant
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_cli_backups import ago, backup, unfinished
from tests.unit.cli.test_cli_start import complete

RESTORES, UNDO = "/v1/tenants/acme/restores", "/v1/tenants/acme/restores/undo"
ACCEPTED = Answer(202, operation("pending", step("check_backup"), kind="restore"))


@pytest.mark.parametrize(
    ("typed", "body"),
    [
        ("acme --in-place", {"target": "in_place"}),
        ("--in-place acme", {"target": "in_place"}),
        ("--json --in-place acme", {"target": "in_place"}),
        ("--in-place --json acme --yes", {"target": "in_place"}),
        ("acme --in-place --from bk_1", {"target": "in_place", "backup_id": "bk_1"}),
        ("--from bk_1 acme --in-place", {"target": "in_place", "backup_id": "bk_1"}),
        (
            "acme --in-place --server pg-b --source-lost",
            {"target": "in_place", "server": "pg-b", "source_lost": True},
        ),
        ("acme --as copy", {"target": {"slug": "copy"}}),
        ("--as undo acme", {"target": {"slug": "undo"}}),
        (
            "acme --as copy --from bk_1 --name Copy --tier dedicated --region eu --server pg-b",
            {
                "backup_id": "bk_1",
                "target": {
                    "slug": "copy",
                    "name": "Copy",
                    "tier": "dedicated",
                    "region": "eu",
                    "server": "pg-b",
                },
            },
        ),
    ],
)
def test_a_restore_asks_for_what_was_typed(
    run: Run, canned: CannedApi, typed: str, body: dict[str, Any]
) -> None:
    canned.on("POST", RESTORES, ACCEPTED)

    result = run("restore", *typed.split())

    assert result.code == 0, result.stderr
    assert [one.body for one in canned.asked] == [body]
    assert ("--json" in typed) == result.stdout.startswith("{")


def test_undo_is_a_command_of_its_own(run: Run, canned: CannedApi) -> None:
    canned.on("POST", UNDO, ACCEPTED)

    first, second = run("restore", "undo", "acme"), run("restore", "--json", "undo", "acme")

    assert (first.code, second.json["id"]) == (0, "op_1")
    assert [(one.path, one.body) for one in canned.asked] == [(UNDO, None)] * 2


def test_a_dry_run_tells_the_plan_and_where_the_new_tenant_goes(
    run: Run, canned: CannedApi
) -> None:
    placement = {"server": "pg-b", "cell": "c", "reason": "pg-b: the only one", "claimed": False}
    plan = {"dry_run": True, "kind": "restore_beside", "tenant": "copy", "steps": ["check_backup"]}
    canned.on("POST", RESTORES, plan | {"placement": placement})

    result = run("restore", "acme", "--as", "copy", "--dry-run")

    assert canned.asked[0].query == {"dry_run": "true"}
    assert result.stdout.splitlines() == [
        "restore_beside copy would run these steps; nothing was changed:",
        "   1  check_backup",
        "placement: pg-b: the only one",
        "database: a new one",
    ]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("acme", ("--in-place", "--as NEW_SLUG")),
        ("acme --in-place --as copy", ("--in-place", "--as NEW_SLUG")),
        ("acme --in-place --tier standard", ("--tier", "--in-place")),
        ("acme --in-place --name x", ("--name", "--in-place")),
        ("acme --as copy --source-lost", ("--source-lost", "--as")),
        ("acme --in-place --bogus", ("--bogus",)),
        ("--bogus acme", ("--bogus",)),
        ("--in-place", ("SLUG",)),
        ("acme beta --in-place", ("beta",)),
        ("undo", ("SLUG",)),
        ("undo acme --in-place", ("--in-place",)),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    run: Run, canned: CannedApi, typed: str, words: tuple[str, ...]
) -> None:
    result = run("restore", *typed.split())

    assert (result.code, result.stdout, canned.asked) == (2, "", [])
    first, usage, remedy = result.stderr.splitlines()
    assert all(word in first for word in words)
    name = "tenantry restore undo" if typed.startswith("undo") else "tenantry restore"
    assert usage == f"  Usage: {name} [OPTIONS] SLUG"
    assert remedy == f"  Try: {name} --help"
    assert run("restore", *typed.split(), "--json").json["code"] == "usage"


def test_the_help_shows_the_command_and_the_group(run: Run) -> None:
    whole, of_default = run("restore", "--help"), run("restore", "acme", "-h")

    assert whole.code == of_default.code == 0
    assert whole.stdout.splitlines()[:2] == [
        "Usage: tenantry restore [OPTIONS] SLUG",
        "       tenantry restore COMMAND [ARGS]...",
    ]
    for words in ("--in-place", "--as NEW_SLUG", "--json", "Commands:\n  undo  Go back"):
        assert whole.stdout.count(words) >= 1
    assert whole.stdout.count("--json") == 1
    assert of_default.stdout.startswith("Usage: tenantry restore [OPTIONS] SLUG\n")
    assert "undo  Go back" not in of_default.stdout


def test_bash_completes_slugs_commands_options_and_backups(
    canned: CannedApi, tmp_path: Path
) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme"), tenant("umbra"), tenant("undone")))
    canned.on("GET", "/v1/tenants/acme/backups", page(backup("bk_2"), backup("bk_1")))

    assert complete(canned, tmp_path, "restore", "u") == ["undo", "umbra", "undone"]
    assert complete(canned, tmp_path, "restore", "a") == ["acme"]
    assert complete(canned, tmp_path, "restore", "--i") == ["--in-place"]
    assert complete(canned, tmp_path, "restore", "--j") == ["--json"]
    assert complete(canned, tmp_path, "restore", "acme", "--so") == ["--source-lost"]
    assert complete(canned, tmp_path, "restore", "acme", "--from", "bk") == ["bk_2", "bk_1"]
    assert complete(canned, tmp_path, "restore", "undo", "a") == ["acme"]
    assert complete(canned, tmp_path, "restore", "acme", "--tier", "d") == ["dedicated"]


def typed_at(canned: CannedApi, home: Path, answer: bytes, *arguments: str) -> tuple[int, str]:
    """What a person sees who answers the question like this."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tenantry")), "restore", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            "PATH": os.environ["PATH"],
            "TENANTRY_URL": canned.url,
            "TENANTRY_TOKEN": TOKEN,
            "TENANTRY_HOME": str(home),
            "PYTHONUTF8": "1",
        },
    )
    os.close(theirs)
    shown, answered = b"", False
    while True:
        try:
            shown += (read := os.read(ours, 65536))
        except OSError:
            break
        if not read:
            break
        if b"[y/N]" in shown and not answered:
            os.write(ours, answer)
            answered = True
    os.close(ours)
    return process.wait(timeout=10), shown.decode()


def test_in_place_is_asked_about_on_a_terminal(canned: CannedApi, tmp_path: Path) -> None:
    young = backup("bk_2", snapshot_at=ago(hours=3.1))
    old, torn = backup("bk_1", snapshot_at=ago(days=1)), unfinished("bk_3", "failed")
    canned.on("GET", "/v1/tenants/acme/backups", page(torn, old, young))
    canned.on("POST", RESTORES, ACCEPTED)

    code, shown = typed_at(canned, tmp_path, b"y\n", "acme", "--in-place")

    assert code == 0, shown
    assert "acme goes back to its data as of 3 h ago (bk_2);" in shown
    assert "Restore acme in place? [y/N]" in shown
    # What was agreed to is what is asked for, whatever is backed up meanwhile.
    assert canned.asked[-1].body == {"target": "in_place", "backup_id": "bk_2"}


@pytest.mark.parametrize("answer", [b"n\n", b"\n"])
def test_whoever_does_not_agree_changes_nothing(
    canned: CannedApi, tmp_path: Path, answer: bytes
) -> None:
    canned.on("GET", "/v1/backups/bk_1", backup("bk_1", drills=[]))

    code, shown = typed_at(canned, tmp_path, answer, "acme", "--in-place", "--from", "bk_1")

    assert code == 1
    assert shown.splitlines()[-1] == "nothing was changed"
    assert {one.method for one in canned.asked} == {"GET"}


@pytest.mark.parametrize(
    "typed", ["acme --in-place --yes", "acme --in-place --dry-run --json", "acme --as copy"]
)
def test_nothing_else_is_asked_about(canned: CannedApi, tmp_path: Path, typed: str) -> None:
    canned.on("POST", RESTORES, ACCEPTED)

    code, shown = typed_at(canned, tmp_path, b"", *typed.split())

    assert code == 0
    assert "[y/N]" not in shown
    assert {one.method for one in canned.asked} == {"POST"}


def test_without_a_backup_the_api_says_why_not(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("GET", "/v1/tenants/acme/backups", page(unfinished("bk_3", "failed")))
    canned.on("POST", RESTORES, Answer(409, {"code": "wrong_state", "status": 409, "detail": "!"}))

    code, shown = typed_at(canned, tmp_path, b"", "acme", "--in-place")

    assert (code, shown.splitlines()) == (4, ["error: !"])
    assert canned.asked[-1].body == {"target": "in_place"}
