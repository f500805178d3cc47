"""The local stack keeps what it promises: nothing half-started, nothing left, one clear line."""

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from control_plane.config import REPOSITORY
from deploy.local import leftovers, lock
from deploy.local.layout import Layout
from deploy.local.options import StackOptions
from deploy.local.ports import LOOPBACK
from deploy.local.problem import StackError
from deploy.local.stack import Stack
from tests.conftest import FAST_POSTGRES, Cli
from tests.fakes.scripted_s3 import LoseObject, Rule, ScriptedS3, of_stack

SERVERS = {"catalog", "pg-a", "pg-b", "redis", "object-store"}


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="tenantry-test-", dir="/tmp"))
    yield home
    assert leftovers.sweep(home) == []
    shutil.rmtree(home)


@pytest.fixture
def servers(home: Path) -> Stack:
    """A stack of the other projects' servers only, not started."""
    return Stack(
        StackOptions(
            home=home, attached=True, application=False, postgres_settings=dict(FAST_POSTGRES)
        )
    )


def _dev(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TENANTRY_HOME": str(home)},
    )


def _wait_gone(home: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while leftovers.find(home):
        assert time.monotonic() < deadline, f"left running: {leftovers.find(home)}"
        time.sleep(0.05)


def _pids(facts: dict[str, Any]) -> dict[str, int]:
    return {process["name"]: process["pid"] for process in facts["processes"]}


def _admin(server: dict[str, Any], **changes: str) -> dict[str, Any]:
    return {
        "host": LOOPBACK,
        "port": server["port"],
        "user": server["admin_user"],
        "password": Path(server["admin_password_file"]).read_text().strip(),
        "dbname": "postgres",
        **changes,
    }


def test_a_killed_supervisor_takes_everything_along_and_a_new_one_starts(servers: Stack) -> None:
    first = servers.start()
    assert set(_pids(first)) == SERVERS
    assert all(_pids(first).values())
    holder = int(servers.layout.lock.read_text())
    os.kill(holder, signal.SIGKILL)
    _wait_gone(servers.options.home)
    again = Stack(servers.options)
    second = again.start()
    assert [s["port"] for s in second["servers"]] == [s["port"] for s in first["servers"]]
    again.stop()
    servers.stop()
    assert leftovers.find(servers.options.home) == []


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_that_dies_comes_back_on_its_port(running_servers: Stack, name: str) -> None:
    died = running_servers.kill(name)
    assert running_servers.wait_running(name, other_than=died) != died
    recorded = json.loads(running_servers.layout.facts.read_text())
    assert _pids(recorded) == _pids(running_servers.facts())


@pytest.fixture(scope="module")
def running_servers() -> Iterator[Stack]:
    home = Path(tempfile.mkdtemp(prefix="tenantry-test-", dir="/tmp"))
    stack = Stack(
        StackOptions(
            home=home, attached=True, application=False, postgres_settings=dict(FAST_POSTGRES)
        )
    )
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home)


def test_a_port_taken_since_gives_one_line_and_nothing_is_left(servers: Stack) -> None:
    facts = servers.start()
    servers.stop()
    port = facts["servers"][0]["port"]
    with socket.socket() as thief:
        thief.bind((LOOPBACK, port))
        thief.listen()
        with pytest.raises(StackError) as raised:
            servers.start()
    assert f"port {port}, which pg-a keeps, is taken by process {os.getpid()}" in str(raised.value)
    assert leftovers.find(servers.options.home) == []
    assert not servers.running
    assert not servers.layout.facts.exists()
    servers.start()
    servers.stop()


def test_a_server_that_cannot_start_stops_the_rest_and_says_why(servers: Stack) -> None:
    broken = {**FAST_POSTGRES, "shared_buffers": "a lot"}
    options = StackOptions(
        home=servers.options.home, attached=True, application=False, postgres_settings=broken
    )
    with pytest.raises(StackError, match=r"ended while starting; .*\.log ends: .*") as raised:
        Stack(options).start()
    assert "\n" not in str(raised.value)
    assert leftovers.find(servers.options.home) == []
    servers.start()
    servers.stop()


def test_a_store_that_lies_stops_the_rest_and_says_why(home: Path) -> None:
    with ScriptedS3(lambda: of_stack(Layout(home))) as proxy:
        proxy.script(Rule(LoseObject(leaving=bytes(100_000)), operation="PutObject"))
        stack = Stack(
            StackOptions(
                home=home,
                attached=True,
                demo=False,
                postgres_settings=dict(FAST_POSTGRES),
                environment={"TENANTRY_S3_ENDPOINT": proxy.url},
            )
        )
        with pytest.raises(StackError, match="object store failed: the store lies"):
            stack.start()
        assert leftovers.find(home) == []
        stack.start()
        assert proxy.count("PutObject") == 3
        stack.stop()


def test_no_room_on_the_disk_is_one_line(home: Path) -> None:
    options = StackOptions(home=home, attached=True, minimum_free_bytes=1 << 60)
    with pytest.raises(StackError, match=r"the disk of .* is full; free some space"):
        Stack(options).start()
    assert not (home / "postgres").exists()


@pytest.mark.parametrize("started_parts", [1, 9])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_up_leaves_nothing(
    home: Path, number: signal.Signals, code: int, started_parts: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.local", "up"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TENANTRY_HOME": str(home)},
    ) as started:
        assert started.stderr is not None
        for _ in range(started_parts):
            assert started.stderr.readline()
        assert leftovers.find(home)
        started.send_signal(number)
        assert started.wait(60) == code
    assert lock.wait_free(Stack(StackOptions(home=home)).layout.lock, 30)
    assert leftovers.find(home) == []
    assert _dev(home, "reset", "--yes").returncode == 0
    home.mkdir()


def test_settings_hold_for_many_databases_and_for_secrets(running_servers: Stack) -> None:
    wanted = {
        "recovery_init_sync_method": "syncfs",
        "autovacuum_naptime": "10min",
        "wal_level": "logical",
        "password_encryption": "scram-sha-256",
        "listen_addresses": LOOPBACK,
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "server_encoding": "UTF8",
        "max_connections": "400",
    }
    majors = set()
    for server in running_servers.facts()["servers"]:
        with psycopg.connect(**_admin(server)) as connection:
            majors.add(connection.info.server_version // 10_000)
            for name, value in wanted.items():
                row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                assert row == (value,), (server["name"], name)
            cap = connection.execute("SHOW max_slot_wal_keep_size").fetchone()
            assert cap not in {None, ("-1",)}
            rules = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
            assert rules.fetchall() == [("scram-sha-256",)]
            collation = connection.execute("SELECT DISTINCT datcollate FROM pg_database")
            assert collation.fetchall() == [("C.UTF-8",)]
    assert len(majors) == 2


def test_servers_refuse_a_wrong_password_and_keep_it_from_the_log(running_servers: Stack) -> None:
    for server in running_servers.facts()["servers"]:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(**_admin(server, password="canary-7f3a"))
        with (
            psycopg.connect(**_admin(server)) as connection,
            pytest.raises(psycopg.errors.DivisionByZero),
        ):
            connection.execute("SELECT 1 / %s, %s", [0, "canary-7f3a"])
        assert "canary-7f3a" not in running_servers.log(server["name"]).read_text()


def test_the_catalog_belongs_to_a_role_that_is_no_superuser(running_servers: Stack) -> None:
    catalog = running_servers.facts()["catalog"]
    password = Path(catalog["password_file"]).read_text().strip()
    with psycopg.connect(
        **_admin(catalog, user=catalog["user"], password=password, dbname=catalog["database"])
    ) as connection:
        row = connection.execute(
            """SELECT rolsuper, rolcreaterole, rolcreatedb, pg_get_userbyid(datdba) = rolname
               FROM pg_roles, pg_database
               WHERE rolname = current_user AND datname = current_database()"""
        ).fetchone()
    assert row == (False, False, False, True)


def test_secrets_are_private_and_on_no_command_line(running_servers: Stack) -> None:
    secrets = list((running_servers.options.home / "secrets").iterdir())
    assert len(secrets) >= 6
    texts = [path.read_text().strip() for path in secrets]
    texts += list(
        json.loads(running_servers.layout.secret("object-store.json").read_text()).values()
    )
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    facts = running_servers.layout.facts.read_text()
    for pid in _pids(running_servers.facts()).values():
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [text for text in texts if text in command or text in facts]


def test_redis_asks_for_its_password_and_never_evicts(running_servers: Stack) -> None:
    redis = running_servers.facts()["redis"]
    password = Path(redis["password_file"]).read_text().strip()

    def say(*lines: str) -> str:
        with socket.create_connection((redis["host"], redis["port"]), timeout=5) as connection:
            connection.sendall("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
            return connection.makefile().read()

    assert say("PING").startswith("-NOAUTH")
    answers = say(f"AUTH {password}", "CONFIG GET maxmemory-policy", "CONFIG GET appendonly")
    assert "noeviction" in answers
    assert "appendonly\n$3\nyes" in answers


def test_the_object_store_knows_its_bucket_and_refuses_strangers(running_servers: Stack) -> None:
    store = running_servers.facts()["object_store"]
    keys = json.loads(Path(store["credentials_file"]).read_text())
    with httpx.Client(base_url=store["url"]) as client:
        assert client.get("/tenantry").status_code in {400, 403}
        forged = _signed(store["url"], {**keys, "secret_key": "0" * 40})
        assert client.get("/", headers=forged).status_code == 403
        listed = client.get("/", headers=_signed(store["url"], keys))
    assert listed.status_code == 200
    assert f"<Name>{store['bucket']}</Name>" in listed.text


def _signed(url: str, keys: dict[str, str]) -> dict[str, str]:
    """Headers of a GET of / with an AWS signature, version 4 (docs.aws.amazon.com, SigV4)."""
    host = url.removeprefix("http://")
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    headers = f"host:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{stamp}\n"
    request = hashlib.sha256(f"GET\n/\n\n{headers}\n{names}\n{empty}".encode()).hexdigest()
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    key = f"AWS4{keys['secret_key']}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{request}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={keys['access_key']}/{scope}"
    return {
        "x-amz-date": stamp,
        "x-amz-content-sha256": empty,
        "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, "
        f"Signature={signature}",
    }


def test_a_second_up_changes_nothing_and_is_quick(stack: Stack) -> None:
    before = _pids(stack.facts())
    began = time.monotonic()
    again = _dev(stack.options.home, "up", "--no-demo", "--json")
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - began < 15
    assert _pids(json.loads(again.stdout)) == before


def test_up_mends_what_was_halted(stack: Stack) -> None:
    stack.halt("pooler-p2")
    assert _dev(stack.options.home, "status").returncode == 1
    assert _dev(stack.options.home, "up", "--no-demo").returncode == 0
    assert stack.pid("pooler-p2")
    assert _dev(stack.options.home, "status").returncode == 0


def test_status_names_what_others_rely_on(stack: Stack) -> None:
    status = json.loads(_dev(stack.options.home, "status", "--json").stdout)
    assert status == stack.facts() == json.loads(stack.layout.facts.read_text())
    assert httpx.get(f"{status['api_url']}/health/ready").status_code == 200
    assert Path(status["token_file"]).stat().st_mode & 0o777 == 0o600
    assert Path(status["state_dir"]) == stack.options.home
    assert [pooler["name"] for pooler in status["poolers"]] == ["p1", "p2"]
    for pooler in status["poolers"]:
        assert {"name", "host", "port", "pid"} <= pooler.keys()
        socket_file = Path(pooler["console_socket_dir"]) / f".s.PGSQL.{pooler['port']}"
        assert socket_file.is_socket()
    for server in status["servers"]:
        assert {"name", "host", "port", "version", "pid", "data_dir"} <= server.keys()
        postmaster = (Path(server["data_dir"]) / "postmaster.pid").read_text()
        assert postmaster.startswith(f"{server['pid']}\n")
    assert {"host", "port"} <= status["catalog"].keys()
    assert {"url", "bucket"} <= status["object_store"].keys()
    assert len({process["pid"] for process in status["processes"]}) == 13
    environment = status["environment"]
    assert "TENANTRY_CATALOG_DSN" in environment
    assert environment["TENANTRY_BACKUP_STORE"].startswith("s3://tenantry/")
    assert environment["TENANTRY_S3_ENDPOINT"] == status["object_store"]["url"]
    assert Path(environment["TENANTRY_S3_CREDENTIALS_FILE"]).stat().st_mode & 0o777 == 0o600
    programs = [Path(part) for part in environment["TENANTRY_POSTGRES_PROGRAMS"].split(":")]
    assert {Path(server["bin_dir"]) for server in status["servers"]} == set(programs)
    for program in ("pg_dump", "pg_restore"):
        assert all((directory / program).is_file() for directory in programs)


@pytest.mark.parametrize("name", ["api", "beat", "worker-transfer", "agent-p1", "pooler-p1"])
def test_a_process_of_the_application_that_dies_comes_back(stack: Stack, name: str) -> None:
    died = stack.kill(name)
    assert stack.wait_running(name, other_than=died) != died


def test_a_killed_worker_leaves_no_child(stack: Stack) -> None:
    main = stack.pid("worker-control")
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    assert len(children) == 4
    stack.kill("worker-control")
    stack.wait_running("worker-control", other_than=main)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_both_servers_are_enrolled_and_ready_for_tenants(stack: Stack, cli: Cli) -> None:
    listed = cli("servers", "list", "--json")
    assert listed.code == 0, listed.stderr
    known = {server["name"]: server for server in json.loads(listed.stdout)}
    for server in stack.facts()["servers"]:
        assert known[server["name"]]["port"] == server["port"]


def test_logs_of_a_process_can_be_read(stack: Stack) -> None:
    shown = _dev(stack.options.home, "logs", "worker-control", "--lines", "500")
    assert "control@" in shown.stdout
    unknown = _dev(stack.options.home, "logs", "nobody")
    assert unknown.returncode == 1
    assert "worker-control" in unknown.stderr


async def test_two_at_once_start_one_stack(servers: Stack) -> None:
    other = Stack(servers.options)
    results = await asyncio.gather(
        asyncio.to_thread(servers.start), asyncio.to_thread(other.start), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) <= 1
    assert all(isinstance(result, StackError) for result in refused)
    assert set(_pids(servers.facts() if servers.running else other.facts())) == SERVERS
    servers.stop()
    other.stop()
