"""A trivial revision over a fleet on two servers: a rollout, the raw DDL, and alembic's command.

The raw limit is a bare connection to each database and the same DDL with the version row, in one
message, at the concurrency that does best. Its column is dropped again, so that the schema stays
what the template makes.
"""

import asyncio
import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from control_plane.config import REPOSITORY
from deploy.local.options import ServerOptions
from tests.benchmarks import report
from tests.benchmarks.stage import stage

TENANTS = int(os.environ.get("TENANTRY_BENCH_TENANTS", "500"))
_MAKERS = 8
_CONCURRENCIES = (4, 8, 16)
_CLI_SAMPLE = 8
_TABLE = "providers.provider"
_VERSION_ROW = "UPDATE public.alembic_version SET version_num = version_num"
_REVISION = '''"""{title}"""

from alembic import op

revision = "{revision}"
down_revision = "{down}"


def upgrade() -> None:
    op.execute("ALTER TABLE {table} ADD COLUMN {column} integer")


def downgrade() -> None:
    op.execute("ALTER TABLE {table} DROP COLUMN {column}")
'''


@dataclass(frozen=True)
class Place:
    """One tenant's database, as its server's administrator reaches it."""

    server: dict[str, Any]
    name: str

    @property
    def login(self) -> dict[str, Any]:
        return {
            "host": self.server["host"],
            "port": self.server["port"],
            "user": self.server["admin_user"],
            "password": Path(self.server["admin_password_file"]).read_text().strip(),
            "database": self.name,
        }


class Files:
    """A copy of the clinic's template to which revisions are added."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "clinic"
        shutil.copytree(REPOSITORY / "tenant_template", self.directory)

    def add(self, revision: str, down: str, column: str) -> None:
        text = _REVISION.format(
            title="A trivial revision", revision=revision, down=down, table=_TABLE, column=column
        )
        (self.directory / "versions" / f"{revision}.py").write_text(text)


class Operator:
    """What an operator does, by the API."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self._api = api

    async def fill(self, count: int) -> None:
        """``count`` active tenants, half on each server."""
        gate = asyncio.Semaphore(_MAKERS)

        async def one(number: int) -> None:
            async with gate:
                slug = f"bench-{number:05d}"
                body = {"slug": slug, "name": slug, "server": ("pg-a", "pg-b")[number % 2]}
                answer = await self._api.post("/v1/tenants", json=body)
                answer.raise_for_status()
                await self.over(answer.json()["id"], 0.1)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def roll_out(self) -> tuple[float, dict[str, Any]]:
        """A rollout with a canary and three waves: seconds from the request to its end."""
        began = time.perf_counter()
        body = {"canary": 2, "waves": ["5%", "25%", "100%"]}
        answer = await self._api.post("/v1/rollouts", json=body)
        answer.raise_for_status()
        ended = await self.over(answer.json()["id"], 0.1)
        return time.perf_counter() - began, ended

    async def over(self, operation: str, pause: float) -> dict[str, Any]:
        while True:
            found: dict[str, Any] = (await self._api.get(f"/v1/operations/{operation}")).json()
            if found["state"] in ("succeeded", "failed", "cancelled"):
                assert found["state"] == "succeeded", found
                return found
            await asyncio.sleep(pause)

    async def revision(self) -> str:
        tenant = (await self._api.get("/v1/tenants/bench-00000")).json()
        return str(tenant["schema_revision"])

    async def rest(self) -> None:
        """Until nothing is in progress."""
        while await self._alive():
            await asyncio.sleep(0.5)

    async def _alive(self) -> bool:
        for state in ("pending", "running", "waiting"):
            found = await self._api.get("/v1/operations", params={"state": state})
            if found.json()["items"]:
                return True
        return False


async def places(stack_facts: dict[str, Any]) -> list[Place]:
    """Every tenant database of the fleet, the servers taking turns."""
    found: list[list[Place]] = []
    for server in stack_facts["servers"]:
        connection = await asyncpg.connect(**Place(server, "postgres").login)
        rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname ~ '^t_'")
        found.append([Place(server, row["datname"]) for row in rows])
        await connection.close()
    return [place for pair in zip(*found, strict=False) for place in pair]


async def raw(fleet: list[Place], together: int, column: str) -> float:
    """Databases per second of connecting and altering, ``together`` at a time."""
    gate = asyncio.Semaphore(together)
    script = f"ALTER TABLE {_TABLE} ADD COLUMN {column} integer; {_VERSION_ROW}"

    async def one(place: Place) -> None:
        async with gate:
            connection = await asyncpg.connect(**place.login)
            await connection.execute(script)
            await connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(place) for place in fleet))
    return len(fleet) / (time.perf_counter() - began)


async def undo(fleet: list[Place], column: str) -> None:
    gate = asyncio.Semaphore(_CONCURRENCIES[-1])

    async def one(place: Place) -> None:
        async with gate:
            connection = await asyncpg.connect(**place.login)
            await connection.execute(f"ALTER TABLE {_TABLE} DROP COLUMN {column}")
            await connection.close()

    await asyncio.gather(*(one(place) for place in fleet))


async def raw_limit(fleet: list[Place], name: str) -> float:
    best = 0.0
    for together in _CONCURRENCIES:
        column = f"{name}_{together}"
        rate = await raw(fleet, together, column)
        report.line(f"raw DDL, {together:2d} at once       {rate:7.1f} databases/s")
        best = max(best, rate)
        await undo(fleet, column)
    return best


def alembic_cli(fleet: list[Place], directory: Path, target: str) -> float:
    """Databases per second of one ``alembic upgrade`` process after another."""
    began = time.perf_counter()
    for place in fleet:
        login = place.login
        url = (
            f"postgresql+psycopg://{login['user']}:{login['password']}@{login['host']}:"
            f"{login['port']}/{login['database']}"
        )
        owner = f"{place.name}_owner"
        subprocess.run(
            [sys.executable, "-m", "alembic", "-x", f"url={url}", "-x", f"owner={owner}",
             "upgrade", target],
            cwd=directory,
            check=True,
            capture_output=True,
        )  # fmt: skip
    return len(fleet) / (time.perf_counter() - began)


def told(ended: dict[str, Any]) -> float:
    """Print every step; seconds from the canary's beginning to the end of the last wave."""
    migrating = 0.0
    for step in ended["steps"]:
        took = (
            dt.datetime.fromisoformat(step["finished_at"])
            - dt.datetime.fromisoformat(step["started_at"])
        ).total_seconds()
        report.line(f"    {step['name']:16s} {took:6.2f} s   {step['detail'] or ''}")
        if step["name"] in ("migrate_canary", "migrate_waves"):
            migrating += took
    return migrating


async def measure(api: httpx.AsyncClient, facts: dict[str, Any], files: Files) -> None:
    operator = Operator(api)
    report.heading(f"A trivial revision over {TENANTS} tenants on two servers")
    began = time.perf_counter()
    await operator.fill(TENANTS)
    await operator.rest()
    report.line(f"made {TENANTS} tenants in {time.perf_counter() - began:.0f} s")
    fleet = await places(facts)
    before = await raw_limit(fleet, "before")
    head = await operator.revision()
    files.add("bench1", head, "bench_one")
    seconds, ended = await operator.roll_out()
    ours = TENANTS / told(ended)
    report.line(
        f"tenantry rollout        {ours:7.1f} databases/s   ({seconds:.1f} s with compiling, lint "
        "and the build of the template)"
    )
    best = max(before, await raw_limit(fleet, "after"))
    report.line(f"ratio to the raw limit: {ours / best:.2f}   (bar: at least 0.60)")
    idle, _ = await operator.roll_out()
    report.line(f"nothing to do: {idle:.2f} s for {TENANTS} tenants   (bar: at most 1.00 s)")
    files.add("bench2", "bench1", "bench_two")
    sample = alembic_cli(fleet[:_CLI_SAMPLE], files.directory, "bench2")
    report.line(f"alembic upgrade, a process for each: {sample:.2f} databases/s")
    report.line(f"ratio to that: {ours / sample:.0f} times   (bar: at least 10)")


async def run() -> None:
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-", dir="/tmp") as directory:
        files = Files(Path(directory))
        servers = (ServerOptions("pg-a", "system"), ServerOptions("pg-b", "wheel"))
        environment = {
            "TENANTRY_TEMPLATE_DIR": str(files.directory),
            "TENANTRY_POOL_TARGET": "0",
        }
        with stage(servers, **environment) as stack:
            facts = stack.facts()
            token = Path(facts["token_file"]).read_text().strip()
            async with httpx.AsyncClient(
                base_url=facts["api_url"],
                headers={"Authorization": f"Bearer {token}"},
                timeout=60,
            ) as api:
                await measure(api, facts, files)


def main() -> None:
    asyncio.run(run())
