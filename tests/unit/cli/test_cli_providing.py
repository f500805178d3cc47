"""Servers made to order, and moves to a server that does not exist yet."""

from pathlib import Path

import pytest

from tests.unit.cli.canned_api import NOW, Answer, CannedApi, operation, page
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_cli_start import complete

ACCEPTED = Answer(202, operation("pending"))
PATH = "/v1/provided-servers"
MADE = {
    "id": "sv_1",
    "name": "pg-c",
    "provider": "rds",
    "state": "creating",
    "region": None,
    "instance_class": "db.m7g.large",
    "storage_gb": 200,
    "version": 17,
    "created_at": NOW,
}


def test_what_is_given_is_asked_for_and_nothing_else(run: Run, canned: CannedApi) -> None:
    canned.on("POST", PATH, ACCEPTED)

    plain = run("servers", "create", "pg-c", "--provider", "local")
    full = run(
        *("servers", "create", "pg-d", "--provider", "rds", "--region", "eu-west-1"),
        *("--class", "db.m7g.large", "--storage-gb", "200", "--version", "17"),
        *("--tier", "dedicated", "--capacity", "9", "--label", "rack=7"),
    )

    assert (plain.code, full.code) == (0, 0)
    assert [one.body for one in canned.asked] == [
        {"name": "pg-c", "provider": "local"},
        {
            "name": "pg-d",
            "provider": "rds",
            "region": "eu-west-1",
            "instance_class": "db.m7g.large",
            "storage_gb": 200,
            "version": 17,
            "tier": "dedicated",
            "capacity": 9,
            "labels": {"rack": "7"},
        },
    ]


def test_a_deletion_is_asked_for(run: Run, canned: CannedApi) -> None:
    canned.on("DELETE", f"{PATH}/pg-c", ACCEPTED)

    assert run("servers", "delete", "pg-c").code == 0


def test_what_was_made_is_listed(run: Run, canned: CannedApi) -> None:
    canned.on("GET", PATH, page(MADE))

    (line,) = run("servers", "provided").stdout.splitlines()[1:]

    assert line.split()[:7] == ["pg-c", "rds", "creating", "17", "db.m7g.large", "200", "GB"]


def test_a_move_to_a_new_server_describes_it(run: Run, canned: CannedApi) -> None:
    canned.on("POST", "/v1/tenants/acme/moves", ACCEPTED)

    result = run("move", "acme", "--to", "new", "--provider", "local", "--version", "18")
    named = run("move", "acme", "--to", "new", "--provider", "local", "--name", "pg-acme")

    assert (result.code, named.code) == (0, 0)
    assert [one.body for one in canned.asked] == [
        {"server": "new", "new_server": {"name": "acme", "provider": "local", "version": 18}},
        {"server": "new", "new_server": {"name": "pg-acme", "provider": "local"}},
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "new"), "--to new needs --provider: local, rds, cnpg"),
        (("--to", "pg-b", "--provider", "local"), "go with --to new"),
        (("--to", "pg-b", "--class", "db.m7g.large"), "go with --to new"),
    ],
)
def test_half_a_wish_is_a_wrong_line(
    run: Run, canned: CannedApi, words: tuple[str, ...], told: str
) -> None:
    result = run("move", "acme", *words)

    assert result.code == 2
    assert told in result.stderr
    assert canned.asked == []


def test_bash_completes_what_can_be_deleted(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("GET", PATH, page(MADE))

    assert complete(canned, tmp_path, "servers", "delete", "p") == ["pg-c"]
    assert complete(canned, tmp_path, "servers", "create", "x", "--provider", "c") == ["cnpg"]
