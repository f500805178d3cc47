"""Servers to move between: two of Postgres 15, one of 18, each with a template."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from control_plane.adapters.tenant_roles import bootstrap_server
from tests.integration.tenant_server.clinic import Place, built_template, system_identifier_of
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, TenantServer]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running_server(version))
            for name, version in (("old", 15), ("same", 15), ("newer", 18))
        }


@pytest.fixture(scope="session")
async def source(servers: dict[str, TenantServer]) -> Place:
    server = servers["old"]
    admin = await server.admin()
    await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    return Place(server, await built_template(server, system_identifier), system_identifier)


@pytest.fixture(params=("same", "newer"))
async def target(request: pytest.FixtureRequest, servers: dict[str, TenantServer]) -> Place:
    server = servers[request.param]
    admin = await server.admin()
    await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    return Place(server, "", system_identifier)
