"""Backups, restores and drills against ``pg_dump``, ``zstd`` and ``pg_restore`` in the same run.

The tenant has about 2 GB in six tables with indexes. Raw tools read and write files on the same
disk; ours encrypts, uploads to the stack's S3 server, counts and digests every row in the same
snapshot, and reads the object back.
"""

import asyncio
import datetime as dt
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from deploy.local.options import ServerOptions
from tests.benchmarks import report
from tests.benchmarks.stage import stage

MEGABYTES = int(os.environ.get("TENANTRY_BENCH_MEGABYTES", "2000"))
_TABLES = 6
_ROW_BYTES = 250  # with its share of the indexes
_ROUNDS = 3
_ZSTD_DEFAULT = 3
_FILL = """
    CREATE TABLE bench.visit_{number} (
        id bigint PRIMARY KEY, patient uuid NOT NULL, at timestamptz NOT NULL, kind text NOT NULL,
        fee numeric(10, 2) NOT NULL, note text NOT NULL);
    INSERT INTO bench.visit_{number}
    SELECT n, gen_random_uuid(), now() - n * interval '1 s', 'kind ' || n % 20, n % 1000 / 7.0,
           md5(n::text) || md5((n + 1)::text)
    FROM generate_series(1, {rows}) AS n;
    CREATE INDEX ON bench.visit_{number} (patient);
    CREATE INDEX ON bench.visit_{number} (at);
"""


class Operator:
    """What an operator does, by the API."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self._api = api

    async def ask(self, method: str, path: str, **request: Any) -> Any:
        answer = await self._api.request(method, path, **request)
        answer.raise_for_status()
        return answer.json()

    async def over(self, operation: dict[str, Any]) -> dict[str, Any]:
        while operation["state"] not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.2)
            operation = await self.ask("GET", f"/v1/operations/{operation['id']}")
        assert operation["state"] == "succeeded", operation
        return operation

    async def create(self, slug: str) -> str:
        """A tenant; the name of its database."""
        body = {"slug": slug, "name": slug}
        await self.over(await self.ask("POST", "/v1/tenants", json=body))
        tenant = await self.ask("GET", f"/v1/tenants/{slug}")
        return f"t_{tenant['id'].removeprefix('tn_')}"

    async def back_up(self, slug: str) -> dict[str, Any]:
        return await self.over(await self.ask("POST", f"/v1/tenants/{slug}/backups"))

    async def backups(self, slug: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.ask("GET", f"/v1/tenants/{slug}/backups"))[
            "items"
        ]
        return found


class Raw:
    """The tools of Postgres as the administrator, with files in ``directory``."""

    def __init__(self, server: dict[str, Any], directory: Path) -> None:
        self._server = server
        self.archive = directory / "raw.dump"
        self._zst = directory / "raw.dump.zst"
        self._environment = {
            "PATH": os.environ["PATH"],
            "PGHOST": server["host"],
            "PGPORT": str(server["port"]),
            "PGUSER": server["admin_user"],
            "PGPASSWORD": Path(server["admin_password_file"]).read_text().strip(),
        }

    @property
    def login(self) -> dict[str, Any]:
        return {
            "host": self._server["host"],
            "port": self._server["port"],
            "user": self._server["admin_user"],
            "password": self._environment["PGPASSWORD"],
        }

    def dump(self, database: str, level: int) -> float:
        """Seconds of ``pg_dump | zstd`` to a file."""
        dump = f"{self._program('pg_dump')} -Fc -Z0 {database}"
        return _seconds(lambda: self._run(f"{dump} | zstd -{level} -q -f -o {self._zst}"))

    def prepare_restore(self, database: str) -> None:
        self._run(f"{self._program('pg_dump')} -Fc -Z1 -f {self.archive} {database}")

    async def restore(self, jobs: int) -> float:
        """Seconds of ``pg_restore`` into a fresh database."""
        await self._administer("CREATE DATABASE bench_raw")
        command = (
            f"{self._program('pg_restore')} -j{jobs} --exit-on-error -d bench_raw {self.archive}"
        )
        seconds = _seconds(lambda: self._run(command))
        await self._administer("DROP DATABASE bench_raw WITH (FORCE)")
        return seconds

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(**self.login, database="postgres")
        await connection.execute(statement)
        await connection.close()

    def _program(self, name: str) -> str:
        return str(Path(self._server["bin_dir"]) / name)

    def _run(self, command: str) -> None:
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, env=self._environment)


class Memory:
    """The most memory that the transfer workers have used, in MB, while the block ran."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.idle = self._resident()
        self.most = self.idle

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, self._resident())
            await asyncio.sleep(0.1)

    def _resident(self) -> float:
        """Of all workers together, without what they share, as far as the kernel knows."""
        main = psutil.Process(self._pid)
        family = [main, *main.children(recursive=True)]
        workers = [one for one in family if "python" in one.name() or "celery" in one.name()]
        return sum(one.memory_full_info().uss for one in workers) / 1e6


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _took(operation: dict[str, Any], *names: str) -> float:
    """Seconds that these steps of an operation took."""
    return sum(
        (
            dt.datetime.fromisoformat(step["finished_at"])
            - dt.datetime.fromisoformat(step["started_at"])
        ).total_seconds()
        for step in operation["steps"]
        if step["name"] in names
    )


async def fill(raw: Raw, database: str) -> float:
    """About MEGABYTES of data; how many megabytes the database has then."""
    connection = await asyncpg.connect(**raw.login, database=database)
    owner = f"{database}_owner"
    await connection.execute(f"CREATE SCHEMA bench AUTHORIZATION {owner}; SET ROLE {owner}")
    rows = MEGABYTES * 1_000_000 // (_TABLES * _ROW_BYTES)
    for number in range(_TABLES):
        await connection.execute(_FILL.format(number=number, rows=rows))
    for statement in ("RESET ROLE", "VACUUM ANALYZE", "CHECKPOINT"):
        await connection.execute(statement)
    size = await connection.fetchval("SELECT pg_database_size(current_database())")
    await connection.close()
    return float(size) / 1e6


async def measure_backup(operator: Operator, raw: Raw, database: str, worker: int) -> str:
    """Rounds of the raw pipe and of ours in turn; the newest backup."""
    size = await fill(raw, database)
    report.heading(f"Backup of a tenant of {size:.0f} MB")
    fastest, default, ours, whole = [], [], [], []
    memory = Memory(worker)
    watching = asyncio.create_task(memory.watch())
    for _ in range(_ROUNDS):
        default.append(await asyncio.to_thread(raw.dump, database, _ZSTD_DEFAULT))
        fastest.append(await asyncio.to_thread(raw.dump, database, 1))
        done = await operator.back_up("large")
        ours.append(_took(done, "upload_dump"))
        whole.append(_took(done, *(step["name"] for step in done["steps"])))
    watching.cancel()
    base, usual = report.median(fastest), report.median(default)
    ended = report.median(ours)
    report.line(f"pg_dump -Fc -Z0 | zstd -1 > file   {base:6.1f} s   {size / base:6.0f} MB/s")
    report.line(f"pg_dump -Fc -Z0 | zstd > file      {usual:6.1f} s   {size / usual:6.0f} MB/s")
    report.line(f"tenantry, encrypted and uploaded   {ended:6.1f} s   {size / ended:6.0f} MB/s")
    report.line(f"… read back and recorded as well   {report.median(whole):6.1f} s")
    report.line(f"ratio of throughput: {base / ended:.2f} to zstd -1   (bar: at least 0.90)")
    report.line(f"                     {usual / ended:.2f} to zstd at its default, {_ZSTD_DEFAULT}")
    report.line(f"memory above idle: {memory.most - memory.idle:.0f} MB   (bar: at most 250)")
    return str((await operator.backups("large"))[0]["id"])


async def measure_restore(operator: Operator, raw: Raw, database: str, backup: str) -> None:
    report.heading("Restore of the same tenant")
    await asyncio.to_thread(raw.prepare_restore, database)
    alone, both, ours, whole = [], [], [], []
    for _ in range(_ROUNDS - 1):
        alone.append(await raw.restore(1))
        both.append(await raw.restore(2))
        drill = await operator.over(
            await operator.ask("POST", f"/v1/backups/{backup}/verifications")
        )
        ours.append(_took(drill, "fetch_object", "load_dump"))
        whole.append(_took(drill, *(step["name"] for step in drill["steps"])))
    mine = report.median(ours)
    report.line(f"pg_restore from a file             {report.median(alone):6.1f} s")
    report.line(f"pg_restore -j2 from a file         {report.median(both):6.1f} s")
    report.line(f"tenantry, fetched and decrypted    {mine:6.1f} s")
    report.line(
        f"ratio to pg_restore:     {report.median(alone) / mine:.2f}   (bar: at least 0.80)"
    )
    report.line(f"ratio to pg_restore -j2: {report.median(both) / mine:.2f}")
    report.line(f"a whole drill, every row and index compared: {report.median(whole):.1f} s")


async def run() -> None:
    directory = Path(tempfile.mkdtemp(prefix="tenantry-bench-", dir="/tmp"))
    try:
        with stage((ServerOptions("pg-a", "system"),), TENANTRY_POOL_TARGET="0") as stack:
            facts = stack.facts()
            raw = Raw(facts["servers"][0], directory)
            token = Path(facts["token_file"]).read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(
                base_url=facts["api_url"], headers=headers, timeout=120
            ) as api:
                operator = Operator(api)
                database = await operator.create("large")
                worker = stack.pid("worker-transfer")
                backup = await measure_backup(operator, raw, database, worker)
                await measure_restore(operator, raw, database, backup)
    finally:
        shutil.rmtree(directory)


def main() -> None:
    asyncio.run(run())
