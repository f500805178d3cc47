"""RELOAD and login latency of a pooler with 100, 1,000 and 5,000 routes.

The login is measured against a direct login at the server in the same run.
"""

import asyncio
import time
from pathlib import Path

import asyncpg
import psycopg

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import ServerAddress, connect
from control_plane.config import Secret
from deploy.local.ports import LOOPBACK
from tests.benchmarks import report
from tests.benchmarks.raw_pooler import RawPooler
from tests.benchmarks.stage import stage

_ROUTES = (100, 1_000, 5_000)
_ROUNDS = 20
_LOGIN = "bench_login"
_PASSWORD = "bench-password"


async def login_seconds(port: int, database: str) -> float:
    began = time.perf_counter()
    connection = await asyncpg.connect(
        host=LOOPBACK,
        port=port,
        user=_LOGIN,
        password=_PASSWORD,
        database=database,
        statement_cache_size=0,
    )
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


def reload_seconds(pooler: RawPooler, change: int) -> float:
    """RELOAD by the console after one route changed."""
    pooler.add("moving", f"host={LOOPBACK} port={5000 + change} dbname=x", _LOGIN, _VERIFIER)
    pooler.write()
    with psycopg.connect(
        pooler.console, autocommit=True, cursor_factory=psycopg.ClientCursor
    ) as console:
        began = time.perf_counter()
        console.execute("RELOAD")
        return time.perf_counter() - began


_VERIFIER = scram.verifier(Secret(_PASSWORD))


async def measure() -> None:
    with stage(TENANTRY_POOL_TARGET="0") as stack:
        server = stack.facts()["servers"][0]
        password = Secret(Path(server["admin_password_file"]).read_text().strip())
        admin = await connect(
            ServerAddress(
                host=server["host"],
                port=server["port"],
                user=server["admin_user"],
                password=password,
                tls="disable",
            )
        )
        await admin.execute(f"CREATE ROLE {_LOGIN} LOGIN PASSWORD '{_VERIFIER}'")
        await admin.execute("CREATE DATABASE bench_target")
        report.heading("Pooler with many routes (two for each tenant)")
        for routes in _ROUTES:
            await one_size(routes, server["port"])
        await admin.close()


async def one_size(routes: int, server_port: int) -> None:
    pooler = RawPooler()
    try:
        target = f"host={LOOPBACK} port={server_port} dbname=bench_target"
        for place in range(routes):
            pooler.add(f"route-{place:05d}", target, _LOGIN, _VERIFIER)
        pooler.reload()
        reloads = [reload_seconds(pooler, change) for change in range(_ROUNDS)]
        last = f"route-{routes - 1:05d}"
        await login_seconds(pooler.port, last)
        through = [await login_seconds(pooler.port, last) for _ in range(_ROUNDS)]
        direct = [await login_seconds(server_port, "bench_target") for _ in range(_ROUNDS)]
    finally:
        pooler.stop()
    ratio = report.median(through) / report.median(direct)
    report.line(f"{routes:5d} routes   RELOAD {report.milliseconds(reloads)}")
    report.line(
        f"               login  {report.milliseconds(through)}   "
        f"ratio to a direct login {ratio:.2f}"
    )


def main() -> None:
    asyncio.run(measure())
