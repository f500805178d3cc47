"""A server of each version, made ready once, with a clinic that holds one of everything."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.tenant_roles import bootstrap_server
from tests.integration.backups.dumping import filled_clinic
from tests.integration.tenant_server.clinic import (
    Clinic,
    Place,
    built_template,
    system_identifier_of,
)
from tests.integration.tenant_server.postgres_fixture import (
    VERSIONS,
    TenantServer,
    running_server,
)


@pytest.fixture(scope="package")
async def places() -> AsyncIterator[dict[int, Place]]:
    """The servers by major version."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(version)) for version in VERSIONS]
        yield {server.version: await _place(server) for server in servers}


async def _place(server: TenantServer) -> Place:
    admin = await server.admin()
    await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    return Place(server, await built_template(server, system_identifier), system_identifier)


@pytest.fixture(scope="package")
async def filled(places: dict[int, Place]) -> dict[int, Clinic]:
    """Clinics with one of everything and some megabytes of rows; tests leave them as they are."""
    return {version: await filled_clinic(place) for version, place in places.items()}


@pytest.fixture(params=VERSIONS)
def clinic(request: pytest.FixtureRequest, filled: dict[int, Clinic]) -> Clinic:
    found: Clinic = filled[request.param]
    return found


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    return FileStore(directory)
