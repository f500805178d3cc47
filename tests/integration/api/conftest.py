"""One catalog and one API for the whole run, and a key for every kind of caller."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.config import Settings
from control_plane.domain.keys import ROLES
from tests.integration.api.world import (
    World,
    furnish,
    make_catalog,
    open_ports_for,
    running_api,
)
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server

OWN, OTHER = "own-clinic", "other-clinic"


@pytest.fixture(scope="session")
def catalog_postgres() -> Iterator[TenantServer]:
    with running_server(15) as running:
        yield running


@pytest.fixture(scope="session")
def api_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tenantry-api-") as home:
        yield Path(home)


@pytest.fixture(scope="session")
def api_settings(catalog_postgres: TenantServer, api_home: Path) -> Settings:
    return make_catalog(catalog_postgres, "api_tests", api_home)


@pytest.fixture(scope="session")
def api_process(api_settings: Settings) -> Iterator[tuple[str, Path]]:
    with running_api(api_settings, {"TENANTRY_RATE_LIMIT_PER_MINUTE": "1000000"}) as running:
        yield running


@pytest.fixture(scope="session")
async def world(
    api_settings: Settings, api_process: tuple[str, Path], catalog_postgres: TenantServer
) -> AsyncIterator[World]:
    """The API with two active tenants, and keys: one per role, and one of each tenant's own."""
    url, log = api_process
    ports = open_ports_for(api_settings)
    await ports.catalog.open(max_size=4)
    await furnish(ports, catalog_postgres)
    world = World(url, ports, log)
    world.tokens["admin"] = await world.key(*(r for r in ROLES if r != "breakglass"))
    for slug in (OWN, OTHER):
        await world.active_tenant(slug)
    for role in ROLES:
        world.tokens[role] = await world.key(role)
    world.tokens["own app"] = await world.key("app", tenant=OWN)
    world.tokens["other app"] = await world.key("app", tenant=OTHER)
    yield world
    await ports.catalog.close()


@pytest.fixture
async def admin(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may do everything."""
    async with world.client() as client:
        yield client
