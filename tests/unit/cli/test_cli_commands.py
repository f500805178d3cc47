"""What each command asks of the API."""

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from control_plane.cli.main import tenantry
from tests.unit.cli.canned_api import TOKEN, Answer, CannedApi, operation, page, step, tenant
from tests.unit.cli.conftest import Run

ACCEPTED = Answer(202, operation("pending", step("one")))
REHEARSED: dict[str, Any] = {
    "dry_run": True,
    "kind": "provision",
    "tenant": "acme",
    "steps": ["create_roles", "create_database"],
    "deadline_seconds": 600,
    "placement": {
        "server": "pg-a",
        "cell": "cell-1",
        "reason": "pg-a: least loaded of 2 that fit",
        "claimed": True,
    },
}


def test_create_asks_for_what_was_typed(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", ACCEPTED)
    options = "--name 'Acme Clinic' --tier enterprise --region eu --server pg-b"

    run("tenants", "create", "acme", *shlex.split(options), "--label", "a=1", "--label", "b=x=y")

    assert canned.asked[0].body == {
        "slug": "acme",
        "name": "Acme Clinic",
        "tier": "enterprise",
        "region": "eu",
        "server": "pg-b",
        "labels": {"a": "1", "b": "x=y"},
    }


def test_create_leaves_defaults_to_the_api(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants", ACCEPTED)

    run("tenants", "create", "acme")

    assert canned.asked[0].body == {"slug": "acme", "name": "acme"}
    assert canned.asked[0].query == {}


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        (("tenants", "suspend", "acme"), "POST", "/v1/tenants/acme/suspensions", None),
        (("tenants", "resume", "acme"), "DELETE", "/v1/tenants/acme/suspensions", None),
        (("rotate", "acme"), "POST", "/v1/tenants/acme/rotations", {}),
        (
            ("rotate", "acme", "--grace", "1h"),
            "POST",
            "/v1/tenants/acme/rotations",
            {"grace_seconds": 3600},
        ),
        (
            ("rotate", "acme", "--grace", "0"),
            "POST",
            "/v1/tenants/acme/rotations",
            {"grace_seconds": 0},
        ),
        (("operations", "cancel", "op_1"), "POST", "/v1/operations/op_1/cancel", None),
        (("operations", "retry", "op_1"), "POST", "/v1/operations/op_1/retry", None),
    ],
)
def test_a_change_is_asked_for_with_a_key(
    run: Run, canned: CannedApi, arguments: tuple[str, ...], method: str, path: str, body: object
) -> None:
    canned.on(method, path, ACCEPTED)

    result = run(*arguments)

    assert result.code == 0
    assert "op_1" in result.stdout
    assert canned.asked[0].body == body
    assert len(canned.asked[0].headers["idempotency-key"]) == 36


@pytest.mark.parametrize(
    ("arguments", "method", "path"),
    [
        (("tenants", "create", "acme"), "POST", "/v1/tenants"),
        (("tenants", "suspend", "acme"), "POST", "/v1/tenants/acme/suspensions"),
        (("tenants", "resume", "acme"), "DELETE", "/v1/tenants/acme/suspensions"),
        (("rotate", "acme"), "POST", "/v1/tenants/acme/rotations"),
    ],
)
def test_a_dry_run_prints_the_plan(
    run: Run, canned: CannedApi, arguments: tuple[str, ...], method: str, path: str
) -> None:
    canned.on(method, path, REHEARSED)

    plain, as_json = run(*arguments, "--dry-run", "--wait"), run(*arguments, "--dry-run", "--json")

    assert [one.query for one in canned.asked] == [{"dry_run": "true"}] * 2
    assert plain.stdout.splitlines() == [
        "provision acme would run these steps; nothing was changed:",
        "   1  create_roles",
        "   2  create_database",
        "placement: pg-a: least loaded of 2 that fit",
        "database: taken from the pool",
    ]
    assert as_json.json == REHEARSED


def test_lists_are_filtered_by_the_api(run: Run, canned: CannedApi) -> None:
    for path in ("tenants", "operations", "audit"):
        canned.on("GET", f"/v1/{path}", page())

    run("tenants", "list", "--tier", "standard", "--state", "active", "--server", "pg-a")
    run("operations", "list", "--tenant", "acme", "--state", "failed", "--limit", "7")
    run("audit", "--tenant", "acme", "--since", "2026-01-31T09:00:00+01:00")

    assert [one.query for one in canned.asked] == [
        {"tier": "standard", "state": "active", "server": "pg-a", "limit": "200"},
        {"tenant": "acme", "state": "failed", "limit": "7"},
        {"tenant": "acme", "since": "2026-01-31T08:00:00Z", "limit": "200"},
    ]


def test_pages_are_followed_to_the_end(run: Run, canned: CannedApi) -> None:
    pages = (
        page(tenant("a1"), tenant("a2"), next_cursor="after-a2"),
        page(tenant("a3"), next_cursor="after-a3"),
        page(),
    )
    canned.on("GET", "/v1/tenants", *pages)

    result = run("tenants", "list", "--json")

    assert [one["slug"] for one in result.json] == ["a1", "a2", "a3"]
    assert [one.query.get("cursor") for one in canned.asked] == [None, "after-a2", "after-a3"]


def test_no_more_is_fetched_than_asked_for(run: Run, canned: CannedApi) -> None:
    first = [tenant(f"a{number}") for number in range(200)]
    canned.on(
        "GET",
        "/v1/tenants",
        page(*first, next_cursor="one"),
        page(*[tenant(f"b{number}") for number in range(50)], next_cursor="two"),
    )

    assert len(run("tenants", "list", "--limit", "250", "--json").json) == 250
    assert [one.query["limit"] for one in canned.asked] == ["200", "50"]


def test_the_password_of_a_server_comes_from_the_environment(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANTRY_SERVER_PASSWORD", "hidden-from-argv")
    canned.on("POST", "/v1/servers", ACCEPTED)

    result = run(
        *("servers", "add", "pg-c", "--host", "db3", "--port", "5433", "--user", "root"),
        *("--region", "eu", "--tier", "dedicated", "--capacity", "9", "--label", "rack=7"),
    )

    assert result.code == 0
    assert "hidden-from-argv" not in result.stdout + result.stderr
    assert canned.asked[0].body == {
        "name": "pg-c",
        "host": "db3",
        "port": 5433,
        "user": "root",
        "region": "eu",
        "tier": "dedicated",
        "capacity": 9,
        "labels": {"rack": "7"},
        "password": "hidden-from-argv",
    }


def test_on_a_terminal_the_password_is_asked_for_and_not_shown(
    canned: CannedApi, tmp_path: Path
) -> None:
    canned.on("POST", "/v1/servers", ACCEPTED)
    ours, theirs = pty.openpty()
    # getpass reads from the controlling terminal, which setsid gives the command.
    process = subprocess.Popen(
        [
            *("setsid", "--ctty", "--wait", str(Path(sys.executable).with_name("tenantry"))),
            *("servers", "add", "pg-c", "--host", "db3", "--user", "root"),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            "PATH": os.environ["PATH"],
            "TENANTRY_URL": canned.url,
            "TENANTRY_TOKEN": TOKEN,
            "TENANTRY_HOME": str(tmp_path),
        },
    )
    os.close(theirs)
    shown = b""
    while b"Password of root at db3: " not in shown:
        shown += os.read(ours, 1024)
    os.write(ours, b"hidden-from-view\n")
    assert process.wait(timeout=10) == 0
    shown += os.read(ours, 65536)
    os.close(ours)

    assert canned.asked[0].body["password"] == "hidden-from-view"
    assert b"hidden-from-view" not in shown


def test_without_a_terminal_and_a_password_nothing_is_asked(run: Run, canned: CannedApi) -> None:
    result = run("servers", "add", "pg-c", "--host", "db3", "--user", "root")

    assert (result.code, canned.asked) == (2, [])
    assert "set TENANTRY_SERVER_PASSWORD" in result.stderr


@pytest.mark.parametrize(
    ("typed", "body"),
    [
        (("--role", "application", "--tenant", "acme"), {"name": "app-acme", "tenant": "acme"}),
        (("--role", "app", "--role", "application"), {"name": "app"}),
        (("--role", "app", "--name", "web", "--days", "7"), {"name": "web", "days": 7}),
    ],
)
def test_a_key_is_asked_for(
    run: Run, canned: CannedApi, typed: tuple[str, ...], body: dict[str, object]
) -> None:
    made = {"id": "ky_1", "token": "tnk_1", "expires_at": "2999-01-01T00:00:00Z"}
    canned.on("POST", "/v1/keys", Answer(201, made))

    run("keys", "create", *typed)

    assert canned.asked[0].body == {**body, "roles": ["app"]}


def _commands(command: click.Command, context: click.Context) -> list[click.Command]:
    found = [command]
    if isinstance(command, click.Group):
        for name in set(command.list_commands(context)) - {"admin"}:
            inner = command.get_command(context, name)
            assert inner is not None
            found += _commands(inner, context)
    return found


ALL = _commands(tenantry, click.Context(tenantry))
EXAMPLES = sorted(example for command in ALL for example in getattr(command, "examples", ()))


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.startswith("tenantry ")])
def test_every_example_of_the_help_can_be_typed(example: str) -> None:
    typed = shlex.split(example.partition(" > ")[0])[1:]
    command: click.Command = tenantry
    context = tenantry.make_context("tenantry", list(typed))
    while isinstance(command, click.Group):
        left = [*context._protected_args, *context.args]
        if not left and command.invoke_without_command:
            break
        name, inner, rest = command.resolve_command(context, left)
        assert inner is not None
        context = inner.make_context(name, rest, parent=context)
        command = inner

    assert context.info_name


def test_every_command_explains_itself() -> None:
    for command in ALL:
        assert command.help, command.name
        assert all(
            getattr(parameter, "help", None)
            for parameter in command.params
            if isinstance(parameter, click.Option) and parameter.name in {"json", "utc", "wait"}
        )


def test_every_command_takes_json_before_and_after(run: Run, canned: CannedApi) -> None:
    canned.on("GET", "/v1/tenants", page(tenant("acme")))
    lines = (
        ("--json", "tenants", "list"),
        ("tenants", "--json", "list"),
        ("tenants", "list", "--json"),
    )

    assert [run(*line).json for line in lines] == [[tenant("acme")]] * 3
