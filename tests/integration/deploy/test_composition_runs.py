"""The composition, run: our services as it describes them, on the real servers of a local stack."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.deploy.engine import Engine, EngineError

# The first test of a run waits for everything to start, on a machine that may be busy.
pytestmark = pytest.mark.timeout(900)


def test_it_ends_where_the_local_stack_ends(engine: Engine) -> None:
    tenants = json.loads(engine.run("cli", "tenants", "list", "--json"))
    assert [(tenant["slug"], tenant["state"]) for tenant in tenants] == [("demo-clinic", "active")]
    servers = json.loads(engine.run("cli", "servers", "list", "--json"))
    assert [(s["name"], s["state"]) for s in servers] == [("pg-a", "active"), ("pg-b", "active")]
    who = engine.run("cli", "psql", "demo-clinic", "--", "-Atc", "SELECT current_database()")
    assert who.startswith("t_")
    engine.run("cli", "check")


def test_the_doctor_finds_it_healthy(engine: Engine) -> None:
    report = json.loads(engine.run("cli", "doctor", "--json"))
    assert report["healthy"]
    on_its_machine = json.loads(engine.run("cli", "admin", "doctor", "--json"))
    assert on_its_machine["healthy"]
    assert {"api", "catalog", "redis", "pooler p1", "pooler p2"} <= {
        one["part"] for one in on_its_machine["diagnoses"]
    }


def test_what_works_once_may_work_again(engine: Engine) -> None:
    token = engine.volume("secrets-own") / "admin.token"
    before = token.read_text()
    assert engine.run("secrets") == ""
    engine.run("prepare")
    engine.run("migrate")
    assert engine.run("enrol") == "the store passed its test\n"
    assert token.read_text() == before


def test_a_secret_is_for_its_readers_alone(engine: Engine) -> None:
    for directory in ("own", "application", "agent"):
        place = engine.base / "secrets" / directory
        assert place.stat().st_mode & 0o777 == 0o700
        assert [f for f in place.iterdir() if f.stat().st_mode & 0o077] == []
    assert sorted(f.name for f in (engine.base / "secrets" / "redis").iterdir()) == ["valkey.conf"]


def test_secrets_are_in_no_environment(engine: Engine) -> None:
    own = engine.volume("secrets-own")
    secrets = [f.read_text().strip() for f in own.iterdir() if f.name != "admin.token"]
    for name, process in engine.running.items():
        told = Path(f"/proc/{process.pid}/environ").read_text()
        words = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert [secret for secret in secrets if secret in told + words] == [], name


def test_a_process_that_hangs_is_unhealthy(engine: Engine) -> None:
    for name in ("worker-control", "beat", "agent-p2"):
        assert engine.healthy(name) is None
        pulse, process = engine.base / f"{name}.pulse", engine.running[name]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            long_ago = pulse.stat().st_mtime - 60
            os.utime(pulse, (long_ago, long_ago))
            assert "the pulse stopped" in (engine.healthy(name) or "")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        engine.wait_healthy(name)


def test_a_wrong_command_and_a_missing_file_end_with_one_line(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"invalid choice: 'wroker'"):
        engine.run("migrate", "wroker")
    with pytest.raises(EngineError, match=r"tenantry-run: .*No such file.*'/run/nothing'"):
        engine.run(
            *("prepare", "prepare", "--host", "catalog", "--admin", "tenantry_admin"),
            *("--admin-password-file", "/run/nothing"),
        )


def test_everything_ends_when_it_is_told_to(engine: Engine) -> None:
    codes = engine.down()
    assert len(codes) == 8
    assert {name: code for name, code in codes.items() if code not in {0, -signal.SIGTERM}} == {}
    assert "does not answer" in (engine.healthy("api") or "")
    assert "does not answer" in (engine.healthy("pooler-p1") or "")
