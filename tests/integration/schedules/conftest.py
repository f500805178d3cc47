"""A catalog of its own for every test, copied from one that was migrated once."""

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from control_plane.adapters.object_stores.files import FileStore
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


@pytest.fixture
async def fleet(
    migrated: Settings, schedules_postgres: TenantServer, tmp_path: Path
) -> AsyncIterator[Fleet]:
    name = f"catalog_{next(_NUMBERS)}"
    admin = await schedules_postgres.admin()
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
    await admin.close()
    dsn = f"{migrated.catalog_dsn.rpartition('/')[0]}/{name}"
    ports = open_ports_for(msgspec.structs.replace(migrated, catalog_dsn=dsn))
    ports = msgspec.structs.replace(ports, store=FileStore(tmp_path))
    await ports.catalog.open(max_size=6)
    fleet = Fleet(ports, tmp_path)
    await fleet.change("UPDATE backup_planning SET planned_at = $1", NOW)
    yield fleet
    await ports.catalog.close()
