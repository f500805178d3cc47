"""Two machines: one on which everything is lost, one that has the store and two shares."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.local.account import give, service_account
from deploy.local.layout import Layout
from deploy.local.options import ServerOptions, StackOptions
from deploy.local.stack import Stack
from tests.conftest import FAST_POSTGRES, FAST_TENANTRY, rest_from_schedules
from tests.driver import Driver

OLD = (ServerOptions("pg-a", "system"),)
NEW = (ServerOptions("pg-c", "system"), ServerOptions("pg-d", "wheel"))


@contextlib.contextmanager
def fresh_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="tenantry-life-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def running(
    home: Path,
    servers: tuple[ServerOptions, ...],
    *,
    application: bool = True,
    doubled: bool = False,
) -> Iterator[Stack]:
    """A stack of its own, of these servers; stopped at the end, its files stay."""
    started = Stack(
        StackOptions(
            home=home,
            attached=True,
            demo=False,
            application=application,
            doubled=doubled,
            servers=servers,
            postgres_settings=FAST_POSTGRES,
            environment=FAST_TENANTRY,
        )
    )
    try:
        started.start()
        if application:
            rest_from_schedules(started)
        yield started
    finally:
        started.stop()


@asynccontextmanager
async def driving(stack: Stack) -> AsyncIterator[Driver]:
    token = stack.layout.token.read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    url = stack.facts()["api_url"]
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as api:
        yield Driver(api, Path("/nonexistent"))


def only_the_store_survives(lost: Path, found: Path) -> None:
    """All that goes from one machine to the other: the objects, and which ports are whose."""
    old, new = Layout(lost), Layout(found)
    new.claim(service_account())
    shutil.copytree(old.objects, new.objects)
    for path in (new.objects, *new.objects.rglob("*")):
        give(path, service_account(), 0o700 if path.is_dir() else 0o600)
    shutil.copy(old.ports, new.ports)
    shutil.rmtree(lost)
    lost.mkdir()


@dataclass(frozen=True)
class Machine:
    """``tenantry`` on a machine, with the settings that its stack would have."""

    environment: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        ended = self.run(*arguments)
        assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)
        return ended.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("tenantry")), *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", **self.environment},
        )


def machine_of(stack: Stack) -> Machine:
    facts = stack.facts()
    return Machine(
        {
            **facts["environment"],
            "TENANTRY_URL": facts["api_url"],
            "TENANTRY_TOKEN_FILE": facts["token_file"],
        }
    )
