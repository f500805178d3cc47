"""DSNs and psql. ``psql`` here is a small program that tells how it was called."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.canned_api import TOKEN, Answer, CannedApi, problem
from tests.unit.cli.conftest import Run

SECRET = "s3cret/with@signs:too"
URI = "postgresql://t_1_app_a:s3cret%2Fwith%40signs%3Atoo@127.0.0.1:6432/acme"
REVEAL = "/v1/tenants/acme/dsn"


def revealed(**more: Any) -> dict[str, Any]:
    return {
        "lease_id": "ls_1",
        "dsn": URI,
        "note": None,
        "login": "t_1_app_a",
        "database": "acme",
        "host": "127.0.0.1",
        "port": 6432,
        "pool": "transaction",
        "expires_at": None,
        "driver_hints": {"asyncpg": "statement_cache_size=0"},
        "poolers": [
            {"name": "p1", "host": "127.0.0.1", "port": 6432},
            {"name": "p2", "host": "10.0.0.2", "port": 6433},
        ],
        **more,
    }


def test_the_uri_is_all_there_is_on_stdout(run: Run, canned: CannedApi) -> None:
    canned.on("POST", REVEAL, revealed())

    result = run("dsn", "acme", "--pool", "session", "--reason", "ticket 42")

    assert (result.code, result.stdout, result.stderr) == (0, f"{URI}\n", "")
    assert canned.asked[0].body == {"pool": "session", "reason": "ticket 42"}


def test_the_environment_can_be_read_by_a_shell(run: Run, canned: CannedApi) -> None:
    canned.on("POST", REVEAL, revealed())

    shown = run("dsn", "acme", "--format", "env").stdout

    assert dict(line.split("=", 1) for line in shlex.split(shown, comments=False)) == {
        "PGHOST": "127.0.0.1",
        "PGPORT": "6432",
        "PGDATABASE": "acme",
        "PGUSER": "t_1_app_a",
        "PGPASSWORD": SECRET,
        "DATABASE_URL": URI,
    }


@pytest.mark.parametrize("option", [("--json",), ("--format", "json"), ("--format=env", "--json")])
def test_json_is_the_answer_as_it_came(
    run: Run, canned: CannedApi, option: tuple[str, ...]
) -> None:
    canned.on("POST", REVEAL, revealed())

    assert run("dsn", "acme", *option).json == revealed()


def test_credentials_that_end_are_told_beside_stdout(run: Run, canned: CannedApi) -> None:
    canned.on("POST", REVEAL, revealed(expires_at="2026-01-31T08:00:00Z"))

    result = run("dsn", "acme", "--utc")

    assert result.stdout == f"{URI}\n"
    assert result.stderr == "these credentials end 2026-01-31 08:00:00Z\n"


def test_a_secret_whose_answer_was_lost_is_asked_for_anew(run: Run, canned: CannedApi) -> None:
    canned.on("POST", REVEAL, Answer(hang_up=True), Answer(body=revealed(dsn=None)), revealed())

    result = run("dsn", "acme")
    keys = [asked.headers["idempotency-key"] for asked in canned.asked]

    assert result.stdout == f"{URI}\n"
    assert keys[0] == keys[1] != keys[2]


def test_a_secret_that_is_lost_again_is_no_success(run: Run, canned: CannedApi) -> None:
    canned.on("POST", REVEAL, revealed(dsn=None, note="already shown once"))

    result = run("dsn", "acme")

    assert (result.code, result.stdout, len(canned.asked)) == (5, "", 2)
    assert "then ask again" in result.stderr


def test_a_tenant_that_is_not_ready_is_a_conflict(run: Run, canned: CannedApi) -> None:
    canned.on("POST", REVEAL, problem(409, "wrong_state", "acme is provisioning", operation="op_1"))

    result = run("dsn", "acme")

    assert (result.code, result.stdout) == (4, "")
    assert "tenantry operations show op_1" in result.stderr


@dataclass(frozen=True)
class Psql:
    """How psql was called."""

    argv: list[str]
    environment: dict[str, str]


@pytest.fixture
def path(tmp_path: Path) -> str:
    program = tmp_path / "bin" / "psql"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
        "path = os.environ['PGPASSFILE']\n"
        "told = [open(path).read(), oct(os.stat(path).st_mode)]\n"
        "print(json.dumps(told), file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    program.chmod(0o755)
    return str(program.parent)


def typed(
    canned: CannedApi, path: str, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": path,
        "HOME": "/nonexistent",
        "TENANTRY_URL": canned.url,
        "TENANTRY_TOKEN": TOKEN,
        **more,
    }
    command = [str(Path(sys.executable).with_name("tenantry")), "psql", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=20
    )


def test_psql_takes_our_place_with_the_password_in_a_file_in_memory(
    canned: CannedApi, path: str
) -> None:
    canned.on("POST", REVEAL, revealed())
    overriding = {
        "PGHOSTADDR": "10.9.9.9",
        "PGSERVICE": "other",
        "PGOPTIONS": "-c a=b",
        "PGPASSWORD": "of somebody else",
        "PGPASSFILE": "/nonexistent",
    }

    ended = typed(canned, path, "acme", "--", "-c", "select 1", "-At", **overriding, PAGER="less")
    argv, environment = json.loads(ended.stdout)
    handed_over = {k: v for k, v in environment.items() if k.startswith("PG")}
    file = handed_over.pop("PGPASSFILE")

    assert ended.returncode == 7
    assert argv == ["-c", "select 1", "-At"]
    assert handed_over == {
        "PGHOST": "127.0.0.1",
        "PGPORT": "6432",
        "PGDATABASE": "acme",
        "PGUSER": "t_1_app_a",
    }
    assert file.startswith("/proc/self/fd/")
    assert json.loads(ended.stderr) == ["*:*:*:*:s3cret/with@signs\\:too\n", "0o100600"]
    assert not any(SECRET in value for value in environment.values())
    assert environment["PAGER"] == "less"
    assert TOKEN not in environment.values()


def test_where_files_in_memory_are_unknown_the_environment_has_it(
    canned: CannedApi, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\ndel os.memfd_create\n")
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$PGPASSWORD $PGPASSFILE"\n')
    program.chmod(0o755)
    canned.on("POST", REVEAL, revealed())

    ended = typed(canned, str(tmp_path), "acme", PYTHONPATH=str(tmp_path))

    assert ended.stdout == f"{SECRET} \n"


def test_another_pooler_is_chosen_by_its_name(canned: CannedApi, path: str) -> None:
    canned.on("POST", REVEAL, revealed(database="acme_session", pool="session"))

    ended = typed(canned, path, "acme", "--pool", "session", "--pooler", "p2")
    _, environment = json.loads(ended.stdout)

    assert canned.asked[0].body == {"pool": "session"}
    assert (environment["PGHOST"], environment["PGPORT"]) == ("10.0.0.2", "6433")
    assert environment["PGDATABASE"] == "acme_session"


def test_an_unknown_pooler_names_the_known_ones(canned: CannedApi, path: str) -> None:
    canned.on("POST", REVEAL, revealed())

    ended = typed(canned, path, "acme", "--pooler", "p9")

    assert ended.returncode == 3
    assert ended.stderr == "error: there is no pooler 'p9'; there are: p1, p2\n"


def test_a_machine_without_psql_is_told_what_to_install(canned: CannedApi, tmp_path: Path) -> None:
    canned.on("POST", REVEAL, revealed())

    ended = typed(canned, str(tmp_path), "acme")

    assert ended.returncode == 1
    assert "install the package postgresql-client" in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr


def test_the_password_is_on_no_command_line(canned: CannedApi, tmp_path: Path) -> None:
    program = tmp_path / "psql"
    program.write_text("#!/bin/sh\ntr '\\0' ' ' < /proc/$$/cmdline\n")
    program.chmod(0o755)
    canned.on("POST", REVEAL, revealed())

    ended = typed(canned, f"{tmp_path}:{os.defpath}", "acme", "--", "-l")

    assert ended.stdout.rstrip().endswith("psql -l")
    assert SECRET not in ended.stdout
