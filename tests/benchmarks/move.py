"""Moves of a large tenant under load: what clients see, what is lost, and how fast the copy is.

The load is in a process of its own: eight connections over both poolers, each transaction one row
with a number from a sequence, acknowledged and remembered. Every second move is a reversal.
"""

import asyncio
import datetime as dt
import itertools
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx

from deploy.local.options import ServerOptions
from tests.benchmarks import report
from tests.benchmarks.stage import stage

MOVES = int(os.environ.get("TENANTRY_BENCH_MOVES", "20"))
MEGABYTES = int(os.environ.get("TENANTRY_BENCH_MEGABYTES", "1000"))
_CONNECTIONS = 8
_RATE = 560
_ROW_BYTES = 180
_SETTLE_SECONDS = 3.0
_AROUND_SECONDS = 1.5
_DUMP_JOBS = 2
_FILL = """
SET ROLE {owner};
CREATE TABLE public.history (id bigint, account int, at timestamptz, note text, amount numeric);
INSERT INTO public.history
    SELECT g, g % 100000, now() - g * interval '1 s', md5(g::text) || md5((g + 1)::text), g / 7.0
      FROM generate_series(1, {rows}) AS g;
ALTER TABLE public.history ADD PRIMARY KEY (id);
CREATE INDEX ON public.history (account, at);
CREATE TABLE public.acked (id bigint PRIMARY KEY, writer int, nth int, UNIQUE (writer, nth));
CREATE SEQUENCE public.acked_id;
GRANT SELECT, INSERT ON public.acked TO {app};
GRANT USAGE ON SEQUENCE public.acked_id TO {app};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {backup};
GRANT SELECT ON public.acked_id TO {backup};
RESET ROLE;
"""
_WRITE = "INSERT INTO public.acked VALUES (nextval('public.acked_id'), $1, $2) RETURNING id"


@dataclass(frozen=True)
class Acked:
    """What one connection was told: (moment, id, nth) of each row, and what went wrong."""

    rows: list[tuple[float, int, int]]
    errors: list[str]


async def _write(door: dict[str, Any], number: int, stop: asyncio.Event) -> Acked:
    rows: list[tuple[float, int, int]] = []
    errors: list[str] = []
    connection = await asyncpg.connect(**door, timeout=60)
    due = time.monotonic()
    nth = 0
    while not stop.is_set():
        nth += 1
        try:
            row = await connection.fetchval(_WRITE, number, nth, timeout=60)
            rows.append((time.monotonic(), row, nth))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            errors.append(f"{type(error).__name__}: {error}")
            connection.terminate()
            connection = await asyncpg.connect(**door, timeout=60)
        due = max(due + _CONNECTIONS / _RATE, time.monotonic() - 1)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await connection.close()
    return Acked(rows, errors)


def load(doors: list[dict[str, Any]], pipe: Pipe) -> None:
    """Write until the other side of the pipe says a word; then send what was acknowledged."""

    async def run() -> list[Acked]:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
        every = [_write(doors[n % len(doors)], n, stop) for n in range(_CONNECTIONS)]
        return list(await asyncio.gather(*every))

    pipe.send(asyncio.run(run()))


class Operator:
    """The tenant as an operator and as an administrator see it."""

    def __init__(self, api: httpx.AsyncClient, servers: list[dict[str, Any]]) -> None:
        self._api = api
        self._servers = {server["name"]: server for server in servers}
        self.tenant = ""

    async def create(self) -> None:
        body = {"slug": "bench-move", "name": "bench", "server": "pg-a", "tier": "enterprise"}
        answer = await self._api.post("/v1/tenants", json=body)
        await self.over(answer)
        found = (await self._api.get("/v1/tenants/bench-move")).json()
        self.tenant = found["id"].removeprefix("tn_")
        names = {"owner": "owner", "app": "app", "backup": "bak"}
        roles = {key: f"t_{self.tenant}_{suffix}" for key, suffix in names.items()}
        connection = await asyncpg.connect(**self.login("pg-a", f"t_{self.tenant}"))
        rows = MEGABYTES * 1_000_000 // _ROW_BYTES
        await connection.execute(_FILL.format(rows=rows, **roles), timeout=3600)
        await connection.execute("VACUUM ANALYZE", timeout=3600)
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        report.line(f"the tenant has {size / 1e6:,.0f} MB")
        await connection.close()

    def login(self, server: str, database: str) -> dict[str, Any]:
        facts = self._servers[server]
        return {
            "host": facts["host"],
            "port": facts["port"],
            "user": facts["admin_user"],
            "password": Path(facts["admin_password_file"]).read_text().strip(),
            "database": database,
        }

    async def move(self, *, back: bool) -> dict[str, Any]:
        url = "/v1/tenants/bench-move/moves"
        if back:
            return await self.over(await self._api.post(f"{url}/reverse"))
        return await self.over(await self._api.post(url, json={"server": "pg-b"}))

    async def over(self, answer: httpx.Response) -> dict[str, Any]:
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        while found["state"] not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.5)
            found = (await self._api.get(f"/v1/operations/{found['id']}")).json()
        assert found["state"] == "succeeded", found
        return found

    async def last(self) -> dict[str, Any]:
        page = (await self._api.get("/v1/tenants/bench-move/moves")).json()
        newest: dict[str, Any] = page["items"][0]
        return newest

    async def doors(self) -> list[dict[str, Any]]:
        answer = await self._api.post("/v1/tenants/bench-move/dsn", json={})
        revealed = answer.json()
        url = urlsplit(revealed["dsn"])
        return [
            {
                "host": pooler["host"],
                "port": pooler["port"],
                "database": url.path.lstrip("/"),
                "user": url.username,
                "password": url.password,
                "ssl": False,
                "statement_cache_size": 0,
            }
            for pooler in revealed["poolers"]
        ]


def raw_copy(operator: Operator, binaries: Path) -> float:
    """Seconds of pg_dump -Fd -j2 and pg_restore -j2 into a database made for it."""
    source, target = (operator.login(name, "postgres") for name in ("pg-a", "pg-b"))
    directory = Path(tempfile.mkdtemp(prefix="tenantry-bench-dump-", dir="/tmp"))
    began = time.perf_counter()
    _program(binaries / "createdb", target, "-T", "template0", "bench_raw")
    dump = ["-Fd", "-Z0", f"-j{_DUMP_JOBS}", "-f", str(directory / "dump")]
    _program(binaries / "pg_dump", source, *dump, f"t_{operator.tenant}")
    restore = [f"-j{_DUMP_JOBS}", "--no-owner", "--no-acl", "-d", "bench_raw"]
    _program(binaries / "pg_restore", target, *restore, str(directory / "dump"))
    seconds = time.perf_counter() - began
    _program(binaries / "dropdb", target, "bench_raw")
    shutil.rmtree(directory)
    return seconds


def _program(path: Path, login: dict[str, Any], *arguments: str) -> None:
    environment = {
        **os.environ,
        "PGHOST": login["host"],
        "PGPORT": str(login["port"]),
        "PGUSER": login["user"],
        "PGPASSWORD": login["password"],
    }
    subprocess.run([str(path), *arguments], check=False, env=environment, capture_output=True)


def step_seconds(operation: dict[str, Any], name: str) -> float:
    (step,) = (one for one in operation["steps"] if one["name"] == name)
    began, ended = (_moment(step[key]) for key in ("started_at", "finished_at"))
    return ended - began


def _moment(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def longest_gap(acked: list[Acked], began: float, ended: float) -> float:
    """The longest time in which one connection was told nothing, between two moments."""
    longest = 0.0
    for one in acked:
        moments = [moment for moment, _, _ in one.rows if began <= moment <= ended]
        gaps = [after - before for before, after in itertools.pairwise(moments)]
        longest = max([longest, *gaps])
    return longest


async def check(operator: Operator, acked: list[Acked]) -> tuple[int, int, int]:
    """How many acknowledged rows are lost, how many there twice, how many out of order."""
    connection = await asyncpg.connect(**operator.login("pg-a", f"t_{operator.tenant}"))
    rows = await connection.fetch("SELECT id, writer, nth FROM public.acked", timeout=600)
    await connection.close()
    found = {row["id"]: (row["writer"], row["nth"]) for row in rows}
    lost = sum(id_ not in found for one in acked for _, id_, _ in one.rows)
    disordered = sum(
        after[1] <= before[1] for one in acked for before, after in itertools.pairwise(one.rows)
    )
    return lost, len(rows) - len(found), disordered


async def measure(facts: dict[str, Any], token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=facts["api_url"], headers=headers, timeout=60) as api:
        operator = Operator(api, facts["servers"])
        await operator.create()
        binaries = Path("/usr/lib/postgresql/15/bin")
        raw = [raw_copy(operator, binaries)]
        idle = await operator.move(back=False)
        await operator.move(back=True)
        raw.append(raw_copy(operator, binaries))
        copied = step_seconds(idle, "copy_data")
        detail = next(s["detail"] for s in idle["steps"] if s["name"] == "copy_data")
        report.line(
            f"initial copy: {copied:.1f} s ({detail}); pg_dump -Fd -j2 and pg_restore -j2: "
            f"{', '.join(f'{one:.1f}' for one in raw)} s; ratio {2 * copied / sum(raw):.2f}"
        )
        await _under_load(operator)


async def _under_load(operator: Operator) -> None:
    here, there = multiprocessing.Pipe()
    doors = await operator.doors()
    process = multiprocessing.get_context("spawn").Process(target=load, args=(doors, there))
    process.start()
    await asyncio.sleep(_SETTLE_SECONDS)
    windows: list[tuple[float, float]] = []
    switches: list[tuple[float, float]] = []
    waited: list[float] = []
    began_all = time.monotonic()
    for number in range(MOVES):
        began = time.monotonic()
        await operator.move(back=number % 2 == 1)
        await asyncio.sleep(_SETTLE_SECONDS)
        windows.append((began, time.monotonic()))
        last = await operator.last()
        waited.append(last["paused_ms"] / 1000)
        switched = _moment(last["switched_at"]) - time.time() + time.monotonic()
        switches.append((switched - _AROUND_SECONDS, switched + _AROUND_SECONDS))
        report.line(f"move {number + 1}: {windows[-1][1] - began:.0f} s, paused {waited[-1]:.3f} s")
    seconds = time.monotonic() - began_all
    here.send("stop")
    acked: list[Acked] = await asyncio.to_thread(here.recv)
    process.join()
    _tell(acked, (windows, switches), waited, seconds)
    lost, twice, disordered = await check(operator, acked)
    report.line(f"lost {lost}, duplicated {twice}, reordered {disordered}")


Windows = list[tuple[float, float]]


def _tell(
    acked: list[Acked], windows: tuple[Windows, Windows], waited: list[float], seconds: float
) -> None:
    total = sum(len(one.rows) for one in acked)
    errors = [error for one in acked for error in one.errors]
    whole, around = ([longest_gap(acked, *window) for window in each] for each in windows)
    for name, samples in (
        ("as the worker held them", waited),
        ("longest gap of a client at the switch", around),
        ("longest gap of a client in the whole move", whole),
    ):
        report.line(
            f"{name}: p50 {report.median(samples) * 1000:.0f} ms, "
            f"p99 {report.percentile(samples, 0.99) * 1000:.0f} ms, "
            f"max {max(samples) * 1000:.0f} ms over {len(samples)} moves"
        )
    report.line(
        f"{total} transactions, {total / seconds:.0f} a second, {len(errors)} failed "
        f"{sorted(set(errors))[:3]}"
    )


def main() -> None:
    report.heading(f"Move a tenant of {MEGABYTES} MB, {MOVES} times, under {_RATE} tx/s")
    servers = (ServerOptions("pg-a", "system"), ServerOptions("pg-b", "system"))
    with stage(servers, TENANTRY_POOL_TARGET="0") as running:
        asyncio.run(measure(running.facts(), running.layout.token.read_text().strip()))
