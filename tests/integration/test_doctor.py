"""``tenantry doctor`` on the running stack: healthy as it is, and each broken thing named."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters import key_file
from deploy.local.stack import Stack
from tests.conftest import Cli

NOWHERE = "127.0.0.1:1"


class Doctor:
    """Runs ``tenantry admin doctor`` with the settings of the stack, some of them changed."""

    def __init__(self, stack: Stack) -> None:
        facts = stack.facts()
        self.settings: dict[str, str] = {**facts["environment"], "TENANTRY_URL": facts["api_url"]}

    def __call__(self, **changes: str) -> tuple[int, dict[str, dict[str, Any]]]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("tenantry")), "admin", "doctor", "--json"],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**kept, **self.settings, **changes},
        )
        assert ended.stdout, ended.stderr
        report = json.loads(ended.stdout)
        assert report["healthy"] == (ended.returncode == 0)
        return ended.returncode, {
            one["part"]: one for one in report["diagnoses"] if one["level"] == "problem"
        }


@pytest.fixture
def doctor(stack: Stack) -> Doctor:
    return Doctor(stack)


def test_the_stack_is_healthy(cli: Cli, doctor: Doctor) -> None:
    asked = cli("doctor")
    assert (asked.code, asked.stderr) == (0, "")
    assert "ok - catalog: answers, at migration" in asked.stdout
    assert "ok - store s3://tenantry/local: passed its 6 tests" in asked.stdout
    assert "ok - provider local: answers, " in asked.stdout
    assert doctor() == (0, {})


def test_a_key_nobody_has_put_into_escrow_is_told(cli: Cli, doctor: Doctor) -> None:
    """The stack's own key may have been put into escrow by a test before this one."""
    path = Path(doctor.settings["TENANTRY_KEYRING_FILE"])
    known = key_file.read(path)
    key_file.change(path, lambda now: key_file.rebuilt(now.keys()))
    try:
        asked = cli("doctor")
    finally:
        key_file.change(path, lambda _: known)
    assert asked.code == 0
    assert "tenantry admin keys escrow" in asked.stdout


@pytest.mark.parametrize(
    ("changes", "part", "words", "remedy"),
    [
        ({"TENANTRY_URL": f"http://{NOWHERE}"}, "api", "does not answer", "start the API"),
        (
            {"TENANTRY_CATALOG_DSN": f"postgresql://tenantry@{NOWHERE}/tenantry"},
            "catalog",
            "does not answer",
            "TENANTRY_CATALOG_DSN",
        ),
        ({"TENANTRY_REDIS_URL": f"redis://{NOWHERE}/0"}, "redis", "nobody", "start Redis"),
        (
            {"TENANTRY_BACKUP_STORE": "s3://elsewhere/x", "TENANTRY_KEYSTORE": "s3://tenantry/k"},
            "store s3://elsewhere/x",
            "NoSuchBucket",
            "docs/configuration.md",
        ),
        (
            {"TENANTRY_BACKUP_STORE": "file:///nowhere/at/all"},
            "directory /nowhere/at/all",
            "is not there",
            "TENANTRY_BACKUP_STORE",
        ),
        (
            {"TENANTRY_KEYRING_FILE": "/nowhere/root.keys"},
            "root keys",
            "is not there",
            "admin keys",
        ),
        (
            {"TENANTRY_RDS_REGION": "eu-west-1", "AWS_PROFILE": "nowhere"},
            "providers",
            "(nowhere) could not be found",
            "docs/configuration.md",
        ),
        (
            {"TENANTRY_CNPG_NAMESPACE": "tenants", "TENANTRY_KUBERNETES_TOKEN_FILE": "/nowhere"},
            "provider cnpg",
            "the credentials for Kubernetes cannot be read",
            "docs/providers.md",
        ),
        (
            {"TENANTRY_LOCAL_SUPERVISOR": "/nowhere"},
            "provider local",
            "does not answer at /nowhere",
            "docs/providers.md",
        ),
        (
            {"TENANTRY_RDS_SUBNET_GROUP": "clinics"},
            "settings",
            "TENANTRY_RDS_SUBNET_GROUP is set, and TENANTRY_RDS_REGION is not",
            "docs/configuration.md",
        ),
        (
            {"TENANTRY_REDIS_PASSWORD_FILE": "/nowhere/redis"},
            "settings",
            "TENANTRY_REDIS_PASSWORD_FILE: cannot read /nowhere/redis",
            "docs/configuration.md",
        ),
    ],
)
def test_each_wrong_setting_is_named(
    doctor: Doctor, changes: dict[str, str], part: str, words: str, remedy: str
) -> None:
    code, problems = doctor(**changes)
    assert code == 1
    assert words in problems[part]["found"]
    assert remedy in problems[part]["remedy"]


def test_a_wrong_password_of_the_catalog_is_called_one(doctor: Doctor, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("canary-wrong")
    wrong.chmod(0o600)
    code, problems = doctor(TENANTRY_CATALOG_PASSWORD_FILE=str(wrong))
    assert code == 1
    assert "password authentication failed" in problems["catalog"]["found"]
    assert "canary" not in json.dumps(problems)


def test_a_secret_that_everybody_reads_is_named(doctor: Doctor, tmp_path: Path) -> None:
    open_file = tmp_path / "redis"
    open_file.write_text(Path(doctor.settings["TENANTRY_REDIS_PASSWORD_FILE"]).read_text())
    open_file.chmod(0o644)
    code, problems = doctor(TENANTRY_REDIS_PASSWORD_FILE=str(open_file))
    assert code == 1
    assert list(problems) == ["secret TENANTRY_REDIS_PASSWORD_FILE"]
    assert problems.popitem()[1]["remedy"] == f"run: chmod 600 {open_file}"


async def test_an_old_schema_of_the_catalog_is_named(doctor: Doctor, catalog: Any) -> None:
    head = await catalog.fetchval("SELECT version_num FROM alembic_version")
    try:
        await catalog.execute("UPDATE alembic_version SET version_num = '0001'")
        code, problems = doctor()
    finally:
        await catalog.execute("UPDATE alembic_version SET version_num = $1", head)
    assert code == 1
    assert problems["catalog"]["found"] == f"is at migration 0001, this code needs {head}"
    assert problems["catalog"]["remedy"].endswith("control_plane.catalog.migrate")


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """The process, or both of its kind, stand still, as if they hung; afterwards they go on."""
    processes = stack.facts()["processes"]
    pids = [p["pid"] for p in processes if p["name"] in (name, f"{name}-2")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_a_beat_that_stands_still_is_named(
    stack: Stack, doctor: Doctor, catalog: Any
) -> None:
    with frozen(stack, "beat"):
        code, problems = 0, dict[str, Any]()
        while "beat" not in problems:  # what is under way at the freeze still leaves its trace
            for column in ("backup_planning SET planned_at", "servers SET checked_at"):
                await catalog.execute(f"UPDATE {column} = clock_timestamp() - interval '1 minute'")
            code, problems = doctor()
    assert code == 1
    assert "no periodic work was done" in problems["beat"]["found"]
    assert "start beat" in problems["beat"]["remedy"]
    while "beat" in doctor()[1]:  # until its next round has left a trace
        await asyncio.sleep(0.2)


async def test_a_pooler_without_its_agent_is_named(
    stack: Stack, doctor: Doctor, catalog: Any
) -> None:
    with frozen(stack, "agent-p2"):
        await catalog.execute(
            """UPDATE poolers SET last_seen_at = clock_timestamp() - interval '1 minute'
               WHERE name = 'p2'"""
        )
        code, problems = doctor()
    assert code == 1
    assert list(problems) == ["pooler p2"]
    assert "agent is silent" in problems["pooler p2"]["found"]


async def test_a_server_that_does_not_answer_is_named(doctor: Doctor, catalog: Any) -> None:
    code, problems = 0, dict[str, Any]()
    while "server pg-b" not in problems:  # the watch, every 10 s, may look between the two
        await catalog.execute(
            "UPDATE servers SET reachable = false, problem = 'refused' WHERE name = 'pg-b'"
        )
        code, problems = doctor()
    assert code == 1
    assert problems["server pg-b"]["found"] == "refused"


def test_an_api_that_is_away_is_said_with_another_way(cli: Cli) -> None:
    asked = cli("doctor", environment={"TENANTRY_URL": f"http://{NOWHERE}"})
    assert asked.code == 5
    assert "tenantry admin doctor" in asked.stderr
