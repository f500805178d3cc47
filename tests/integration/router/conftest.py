"""One cell of two poolers for the whole run, and traffic for a test to disturb."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from control_plane.catalog.migrate import migrate
from control_plane.catalog.pool import Catalog
from tests.integration.router.processes import Cluster, PoolerHome
from tests.integration.router.world import CELL, Clinic, World, eventually, settings_for


@pytest.fixture(scope="session")
def clusters() -> Iterator[tuple[Path, Cluster, Cluster]]:
    """The catalog's cluster and the tenants'."""
    base = Path(tempfile.mkdtemp(prefix="tenantry-router-", dir="/tmp"))
    base.chmod(0o755)
    shared = base / "postgres"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    both = [Cluster(log=base / f"{name}.log", data=shared / name) for name in ("catalog", "pg")]
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Cluster.make, both))
        for cluster in both:
            cluster.start()  # in the main thread: a process dies with the thread that made it
        yield base, both[0], both[1]
    finally:
        for cluster in both:
            cluster.stop()
        shutil.rmtree(base)


@pytest.fixture(scope="session")
async def world(clusters: tuple[Path, Cluster, Cluster]) -> AsyncIterator[World]:
    """Catalog, tenant server and two poolers that serve an empty cell."""
    base, catalog_server, tenant_server = clusters
    with psycopg.connect(
        catalog_server.dsn("postgres"), password=catalog_server.password.reveal(), autocommit=True
    ) as admin:
        admin.execute("CREATE DATABASE tenantry")
    settings = settings_for(base, catalog_server)
    await asyncio.to_thread(migrate, settings)
    password = base / "catalog.password"
    password.write_text(catalog_server.password.reveal())
    environment = {
        "TENANTRY_CATALOG_DSN": settings.catalog_dsn,
        "TENANTRY_CATALOG_PASSWORD_FILE": str(password),
        "TENANTRY_REDIS_URL": settings.redis_url,
    }
    homes = [PoolerHome(base, name, CELL, environment) for name in ("p1", "p2")]
    catalog = Catalog(settings)
    await catalog.open()
    world = World(base, catalog_server, tenant_server, settings, catalog, homes, environment)
    try:
        for home in homes:
            home.prepare()
            home.start_pgbouncer()
            home.start_agent()
        await eventually(lambda: _all_serve(world))
        yield world
    finally:
        await catalog.close()
        for home in homes:
            home.stop()


async def _all_serve(world: World) -> bool:
    async with world.catalog.connection() as db:
        served = await db.fetch("SELECT served_version FROM poolers")
    return len(served) == len(world.poolers) and all(row[0] >= 0 for row in served)


@dataclass
class Traffic:
    """What an application saw: when its queries ended, and every error."""

    ended: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def longest_gap(self) -> float:
        """Seconds between two answers at the worst."""
        return max(b - a for a, b in zip(self.ended, self.ended[1:], strict=False))


@asynccontextmanager
async def traffic(world: World, clinic: Clinic) -> AsyncIterator[Traffic]:
    """A client on each pooler that runs transactions without a break."""
    seen = Traffic()
    clients = [await world.connect(clinic, pooler) for pooler in world.poolers]

    async def run(client: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        while True:
            try:
                async with client.transaction():
                    await client.execute("SELECT 1")
            except psycopg.Error as error:
                seen.errors.append(str(error))
                return
            seen.ended.append(time.perf_counter())
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(run(client)) for client in clients]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for client in clients:
            await client.close()
