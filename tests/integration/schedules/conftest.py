"""A catalog of its own for every test, copied from one that was migrated once."""

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.catalog import catalog_life
from control_plane.config import Settings
from tests.integration.api.world import furnish, make_catalog, open_ports_for
from tests.integration.schedules.fleet import NOW, Fleet
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def schedules_postgres() -> Iterator[TenantServer]:
    with running_server(15) as running:
        yield running


@pytest.fixture(scope="session")
async def migrated(schedules_postgres: TenantServer) -> AsyncIterator[Settings]:
    """Settings of a catalog that has a cell and a server, and no tenant."""
    with tempfile.TemporaryDirectory(prefix="tenantry-schedules-") as home:
        settings = make_catalog(schedules_postgres, "migrated", Path(home))
        ports = open_ports_for(settings)
        await ports.catalog.open(max_size=2)
        await furnish(ports, schedules_postgres)
        await ports.catalog.close()
        yield settings


@asynccontextmanager
async def new_fleet(
    migrated: Settings, postgres: TenantServer, directory: Path
) -> AsyncIterator[Fleet]:
    """A copy of the migrated catalog, and a store in this directory."""
    name = f"catalog_{next(_NUMBERS)}"
    admin = await postgres.admin()
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
    await admin.close()
    dsn = f"{migrated.catalog_dsn.rpartition('/')[0]}/{name}"
    ports = open_ports_for(msgspec.structs.replace(migrated, catalog_dsn=dsn))
    ports = msgspec.structs.replace(ports, store=FileStore(directory))
    await ports.catalog.open(max_size=6)
    async with ports.catalog.transaction() as db:
        await catalog_life.accept(db, "tests")
    try:
        yield Fleet(ports, directory)
    finally:
        await ports.catalog.close()


@pytest.fixture
async def fleet(
    migrated: Settings, schedules_postgres: TenantServer, tmp_path: Path
) -> AsyncIterator[Fleet]:
    async with new_fleet(migrated, schedules_postgres, tmp_path) as made:
        await made.change("UPDATE backup_planning SET planned_at = $1", NOW)
        yield made
