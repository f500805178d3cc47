"""``tenantry`` as a person types it, against the running stack."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.plans import PLANS
from deploy.local.stack import Stack
from tests.conftest import Cli, CliResult
from tests.driver import Driver, fresh_slug

WHO_AND_WHERE = "select current_user || ' ' || current_setting('server_version_num')::int / 10000"


def good(result: CliResult) -> CliResult:
    assert result.code == 0, result
    return result


def document(result: CliResult) -> Any:
    """The one JSON document of a command that went well; it says nothing beside it."""
    assert good(result).stderr == ""
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
async def in_agreement(driver: Driver) -> AsyncIterator[None]:
    """After every test, when all work is over, the catalog matches reality."""
    yield
    await driver.assert_clean()


@pytest.fixture(scope="module")
def clinics(cli: Cli) -> dict[str, str]:
    """A clinic on each server: server name to slug."""
    made = {server: fresh_slug("clinic") for server in ("pg-a", "pg-b")}
    for server, slug in made.items():
        good(cli("tenants", "create", slug, "--server", server, "--wait"))
    return made


def test_create_with_wait_shows_the_plan_turning(cli: Cli) -> None:
    slug = fresh_slug("acme")

    made = good(cli("tenants", "create", slug, "--name", "Acme", "--tier", "enterprise", "--wait"))
    title, *steps, end = made.stdout.splitlines()

    assert title == f"provision {slug}"
    assert [line.split()[1] for line in steps] == list(PLANS["provision"].steps)
    assert all(line.split()[0] in {"✓", "–"} for line in steps)  # noqa: RUF001 - the mark of a skipped step
    assert re.fullmatch(rf"provision {slug}: succeeded after \d+(\.\d+)? (ms|s)", end)
    shown = document(cli("tenants", "show", slug, "--json"))
    assert (shown["state"], shown["tier"], shown["name"]) == ("active", "enterprise", "Acme")


def test_create_without_wait_names_an_operation_to_watch(cli: Cli) -> None:
    slug = fresh_slug("acme")

    begun = document(cli("tenants", "create", slug, "--label", "team=north", "--json"))
    watched = good(cli("operations", "watch", begun["id"]))

    assert begun["kind"] == "provision"
    assert watched.stdout.splitlines()[-1].startswith(f"provision {slug}: succeeded")
    assert "labels" in good(cli("tenants", "show", slug)).stdout


def test_wait_with_json_prints_the_finished_operation_only(cli: Cli) -> None:
    ended = document(cli("tenants", "create", fresh_slug("acme"), "--wait", "--json"))

    assert ended["state"] == "succeeded"
    assert all(step["state"] in {"done", "skipped"} for step in ended["steps"])


def test_a_dry_run_changes_nothing(cli: Cli) -> None:
    slug = fresh_slug("acme")

    told = good(cli("tenants", "create", slug, "--dry-run", "--wait")).stdout
    rehearsed = document(cli("tenants", "create", slug, "--dry-run", "--json"))

    assert "nothing was changed" in told
    assert "placement: " in told
    assert rehearsed["steps"] == list(PLANS["provision"].steps)
    assert cli("tenants", "show", slug).code == 3


def test_lists_find_the_clinics(cli: Cli, clinics: dict[str, str]) -> None:
    everyone = {one["slug"]: one for one in document(cli("tenants", "list", "--json"))}
    on_b = [one["slug"] for one in document(cli("--json", "tenants", "list", "--server", "pg-b"))]

    assert {server: everyone[slug]["server"] for server, slug in clinics.items()} == {
        "pg-a": "pg-a",
        "pg-b": "pg-b",
    }
    assert clinics["pg-b"] in on_b
    assert clinics["pg-a"] not in on_b
    assert clinics["pg-a"] in good(cli("tenants", "list")).stdout


@pytest.mark.parametrize("server", ["pg-a", "pg-b"])
def test_psql_works_through_every_pooler_and_endpoint(
    cli: Cli, stack: Stack, clinics: dict[str, str], server: str
) -> None:
    slug = clinics[server]
    login = document(cli("dsn", slug, "--json"))["login"]
    version = next(s["version"] for s in stack.facts()["servers"] if s["name"] == server)

    for pool, pooler in itertools.product(("transaction", "session"), ("p1", "p2")):
        options = ("--pool", pool, "--pooler", pooler, "--", "-XAtc", WHO_AND_WHERE)
        assert good(cli("psql", slug, *options)).stdout == f"{login} {version}\n"


def test_psql_hands_on_its_own_exit_code(cli: Cli, clinics: dict[str, str]) -> None:
    arguments = ("--", "-X", "-v", "ON_ERROR_STOP=1", "-f", "-")

    assert cli("psql", clinics["pg-a"], *arguments, stdin="select 1/0;").code == 3


def test_psql_connects_anew_and_so_do_programs_it_starts(cli: Cli, clinics: dict[str, str]) -> None:
    """The password is in a file that stays as long as psql does."""
    again = ("-c", "\\connect", "-c", "select 1", "-c", "\\! psql -XAtc 'select 2'")

    assert good(cli("psql", clinics["pg-a"], "--", "-XqAt", *again)).stdout == "1\n2\n"


def test_every_format_of_a_dsn_connects(cli: Cli, clinics: dict[str, str]) -> None:
    slug = clinics["pg-a"]
    uri = good(cli("dsn", slug)).stdout.strip()
    variables = dict(
        line.split("=", 1) for line in shlex.split(good(cli("dsn", slug, "--format", "env")).stdout)
    )
    revealed = document(cli("dsn", slug, "--pool", "session", "--format", "json"))

    assert uri == variables.pop("DATABASE_URL")
    assert connects(uri)
    assert connects("", **variables)
    assert connects(revealed["dsn"])
    assert revealed["database"] == f"{slug}_session"


def connects(uri: str, **variables: str) -> bool:
    """Whether plain psql gets an answer with these means."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    ended = subprocess.run(
        ["psql", "-XAtc", "select 1", *([uri] if uri else [])],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return ended.stdout == "1\n"


def test_suspend_cuts_off_and_resume_lets_in_again(cli: Cli, clinics: dict[str, str]) -> None:
    slug = clinics["pg-b"]
    uri = good(cli("dsn", slug)).stdout.strip()

    suspended = good(cli("tenants", "suspend", slug, "--wait"))
    refused = cli("dsn", slug)
    cut_off = not connects(uri)
    again = cli("tenants", "suspend", slug)
    resumed = good(cli("tenants", "resume", slug, "--wait"))

    assert f"suspend {slug}: succeeded" in suspended.stdout
    assert refused.code == again.code == 4
    assert "suspended" in refused.stderr
    assert cut_off
    assert f"resume {slug}: succeeded" in resumed.stdout
    assert connects(uri)


def test_rotate_overlaps_and_does_not_repeat_within_the_grace(cli: Cli) -> None:
    slug = fresh_slug("rotated")
    good(cli("tenants", "create", slug, "--wait"))
    before = good(cli("dsn", slug)).stdout.strip()

    good(cli("rotate", slug, "--grace", "5m", "--wait"))
    after = good(cli("dsn", slug)).stdout.strip()
    too_soon = cli("rotate", slug)

    assert before != after
    assert connects(before)
    assert connects(after)
    assert too_soon.code == 4
    assert "grace" in too_soon.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("tenants", "create", "Bad_Slug"), 2, "lower-case"),
        (("tenants", "create", "acme-nowhere", "--server", "pg-z"), 2, "pg-z"),
        (("tenants", "create", "acme-nowhere", "--region", "atlantis"), 4, "region"),
        (("tenants", "show", "nobody"), 3, "nobody"),
        (("dsn", "nobody"), 3, "nobody"),
        (("psql", "nobody"), 3, "nobody"),
        (("rotate", "nobody", "--dry-run"), 3, "nobody"),
        (("operations", "show", "op_nonsense"), 3, "op_nonsense"),
        (("servers", "show", "pg-z"), 3, "pg-z"),
        (("keys", "revoke", "ky_nonsense"), 3, "ky_nonsense"),
    ],
)
def test_what_cannot_be_done_says_why(
    cli: Cli, arguments: tuple[str, ...], code: int, word: str
) -> None:
    plain, as_json = cli(*arguments), cli(*arguments, "--json")

    assert (plain.code, plain.stdout) == (code, "")
    assert plain.stderr.startswith("error: ")
    assert word in plain.stderr
    assert as_json.code == code
    assert word in json.dumps(json.loads(as_json.stdout), ensure_ascii=False)


def test_a_taken_slug_is_a_conflict(cli: Cli, clinics: dict[str, str]) -> None:
    taken = cli("tenants", "create", clinics["pg-a"])

    assert taken.code == 4
    assert "belongs to another tenant" in taken.stderr


def test_servers_are_listed_and_shown(cli: Cli) -> None:
    listed = {one["name"]: one for one in document(cli("servers", "list", "--json"))}

    assert {"pg-a", "pg-b"} <= set(listed)
    assert all(one["reachable"] for one in listed.values())
    assert "preflight" in document(cli("servers", "show", "pg-a", "--json"))
    assert listed["pg-b"]["version"] in good(cli("servers", "show", "pg-b")).stdout


def test_a_draining_server_takes_nobody_until_it_is_undrained(cli: Cli) -> None:
    slug = fresh_slug("acme")
    good(cli("servers", "drain", "pg-b"))
    try:
        refused = cli("tenants", "create", slug, "--server", "pg-b")
    finally:
        good(cli("servers", "undrain", "pg-b"))

    assert refused.code == 4
    assert "pg-b is draining" in refused.stderr
    good(cli("tenants", "create", slug, "--server", "pg-b", "--dry-run"))


def test_a_server_that_holds_tenants_is_not_removed(cli: Cli, clinics: dict[str, str]) -> None:
    refused = cli("servers", "remove", "pg-a")
    good(cli("servers", "undrain", "pg-a"))

    assert clinics["pg-a"]
    assert refused.code == 4
    assert "tenantry tenants list --server pg-a" in refused.stderr


@pytest.mark.parametrize(
    ("port", "password", "code", "word"),
    [(1, "irrelevant", 5, "refused"), (None, "wrong-password", 2, "password")],
)
def test_a_server_that_cannot_be_used_leaves_nothing_behind(
    cli: Cli, stack: Stack, port: int | None, password: str, code: int, word: str
) -> None:
    real = next(one for one in stack.facts()["servers"] if one["name"] == "pg-a")
    host = ("--host", real["host"], "--port", str(port or real["port"]))

    refused = cli(
        *("servers", "add", "pg-x", *host, "--user", real["admin_user"]),
        environment={"TENANTRY_SERVER_PASSWORD": password},
    )

    assert refused.code == code, refused
    assert word in refused.stderr
    assert cli("servers", "show", "pg-x").code == 3


def test_poolers_serve_what_they_should(cli: Cli, clinics: dict[str, str]) -> None:
    poolers = {one["name"]: one for one in document(cli("poolers", "list", "--json"))}

    assert clinics
    assert set(poolers) == {"p1", "p2"}
    assert all(one["alive"] and not one["problem"] for one in poolers.values())
    assert "p2" in good(cli("poolers", "list")).stdout


def test_an_auditors_key_reads_and_is_refused_the_rest(cli: Cli, clinics: dict[str, str]) -> None:
    made = document(cli("keys", "create", "--role", "auditor", "--days", "1", "--json"))
    auditor = Cli(cli.url, made["token"])

    reads = auditor("tenants", "list", "--json")
    denied = auditor("tenants", "suspend", clinics["pg-a"])
    reveals = auditor("dsn", clinics["pg-a"])
    good(cli("keys", "revoke", made["id"]))
    after = auditor("tenants", "list")
    listed = {one["id"]: one for one in document(cli("keys", "list", "--json"))}

    assert reads.code == 0
    assert denied.code == reveals.code == after.code == 6
    assert "operator" in denied.stderr
    assert "revoked" in after.stderr
    assert listed[made["id"]]["revoked_at"]


def test_an_applications_key_sees_its_own_tenant_only(cli: Cli, clinics: dict[str, str]) -> None:
    own, other = clinics["pg-a"], clinics["pg-b"]
    made = good(cli("keys", "create", "--role", "application", "--tenant", own, "--name", "web"))
    application = Cli(cli.url, made.stdout.strip())

    assert connects(good(application("dsn", own)).stdout.strip())
    good(application("psql", own, "--pooler", "p2", "--", "-XAtc", "select 1"))
    assert application("dsn", other).code == 3
    assert application("tenants", "list").code == 6


def test_a_wrong_key_is_denied(cli: Cli) -> None:
    assert Cli(cli.url, "tnk_nonsense")("tenants", "list").code == 6


def test_the_audit_log_has_the_reason_of_a_reveal(cli: Cli, clinics: dict[str, str]) -> None:
    slug = clinics["pg-a"]
    good(cli("dsn", slug, "--reason", "ticket 4711"))

    events = document(cli("audit", "--tenant", slug, "--since", "1h", "--json"))

    assert any(e["action"] == "dsn.reveal" and e["reason"] == "ticket 4711" for e in events)
    assert "ticket 4711" in good(cli("audit", "--tenant", slug)).stdout
    assert document(cli("audit", "--tenant", slug, "--since", "0s", "--json")) == []


def test_operations_of_a_tenant_are_listed_shown_and_over(
    cli: Cli, clinics: dict[str, str]
) -> None:
    found = document(cli("operations", "list", "--tenant", clinics["pg-a"], "--json"))
    shown = good(cli("operations", "show", found[-1]["id"])).stdout
    watched = good(cli("operations", "watch", found[-1]["id"])).stdout

    assert found[-1]["kind"] == "provision"
    assert "✓ activate" in shown
    assert "✓ activate" in watched
    assert cli("operations", "cancel", found[-1]["id"]).code == 4
    assert cli("operations", "retry", found[-1]["id"]).code == 4


def test_a_step_that_is_tried_again_says_so(cli: Cli, failpoints: Path) -> None:
    slug = fresh_slug("unlucky")
    armed = failpoints / f"provision.activate.before@{slug}"
    armed.write_text("exception")

    ended = good(cli("tenants", "create", slug, "--wait"))

    assert not armed.exists()
    assert "✓ activate" in ended.stdout
    assert "(attempt 2)" in ended.stdout


def test_check_finds_nothing_and_has_nothing_to_mend(cli: Cli, clinics: dict[str, str]) -> None:
    checked, repaired = good(cli("check")), document(cli("check", "--repair", "--json"))

    assert clinics
    assert checked.stdout == "clean: the catalog matches reality\n"
    assert repaired == {"findings": [], "repaired": []}


def test_plans_are_the_plans(cli: Cli) -> None:
    listed = {one["kind"]: tuple(one["steps"]) for one in document(cli("plans", "--json"))}

    assert listed == {kind: plan.steps for kind, plan in PLANS.items()}
    assert "provision" in good(cli("plans")).stdout


def test_bash_completes_the_slugs_of_the_running_system(cli: Cli, clinics: dict[str, str]) -> None:
    folder = Path(sys.executable).parent
    slug = clinics["pg-a"]
    program = f"""
        source <({folder}/tenantry completion bash)
        COMP_WORDS=(tenantry dsn {slug[:-2]}) COMP_CWORD=2
        _tenantry_completion tenantry
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ended = subprocess.run(
        ["bash", "-c", program],
        env={
            **os.environ,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "TENANTRY_URL": cli.url,
            "TENANTRY_TOKEN": cli.token,
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert slug in ended.stdout.split()
