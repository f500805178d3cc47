"""A server of each version, made ready once, with a clinic that holds one of everything."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.tenant_roles import bootstrap_server
from tests.integration.restores.restoring import Backup, back_up_sizeable, put_everything
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


@pytest.fixture(scope="package")
async def places() -> AsyncIterator[dict[int, Place]]:
    """The servers by major version."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(version)) for version in VERSIONS]
        yield {server.version: await ready(server) for server in servers}


async def ready(server: TenantServer) -> Place:
    """The server, bootstrapped, with the closed template."""
    admin = await server.admin()
    await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    return Place(server, await built_template(server, system_identifier), system_identifier)


@pytest.fixture(scope="package")
async def filled(places: dict[int, Place]) -> dict[int, Clinic]:
    """Clinics with one of everything; tests leave them as they are."""
    clinics = {version: await provision(place) for version, place in places.items()}
    for clinic in clinics.values():
        await put_everything(clinic)
    return clinics


@pytest.fixture(scope="package")
async def sizeable(
    places: dict[int, Place], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Backup]:
    """Backups that no restore is through with before somebody can interfere."""
    store = FileStore(tmp_path_factory.mktemp("sizeable"))
    return {version: await back_up_sizeable(place, store) for version, place in places.items()}


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, places: dict[int, Place]) -> Place:
    found: Place = places[request.param]
    return found


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    return FileStore(directory)
