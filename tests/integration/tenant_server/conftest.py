"""One server of each version, made ready once, with three clinics that every test may use."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.tenant_roles import bootstrap_server
from tests.integration.tenant_server.clinic import (
    Clinic,
    Place,
    built_template,
    provision,
    system_identifier_of,
)
from tests.integration.tenant_server.postgres_fixture import (
    VERSIONS,
    TenantServer,
    running_server,
)


@pytest.fixture(scope="session", params=VERSIONS)
def tenant_server(request: pytest.FixtureRequest) -> Iterator[TenantServer]:
    """One server of each version for the whole run."""
    with running_server(request.param) as running:
        yield running


@pytest.fixture(scope="session")
async def place(tenant_server: TenantServer) -> Place:
    server = tenant_server
    admin = await server.admin()
    for _ in range(2):
        await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    return Place(server, await built_template(server, system_identifier), system_identifier)


@pytest.fixture
async def administrator(tenant_server: TenantServer) -> AsyncIterator[Connection]:
    """The administrator's connection to ``postgres``."""
    connection = await tenant_server.admin()
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def clinics(place: Place) -> list[Clinic]:
    return list(await asyncio.gather(*(provision(place) for _ in range(3))))
