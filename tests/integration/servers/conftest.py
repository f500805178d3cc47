"""A server of each version, and for each test an empty catalog."""

import ipaddress
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from control_plane.adapters.keyring import Keyring
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.template_files import Templates
from control_plane.catalog.migrate import migrate
from control_plane.catalog.pool import Catalog, Connection
from control_plane.config import DEFAULT_TEMPLATE, REPOSITORY, Settings
from control_plane.domain.operations import Queue
from control_plane.services.ports import Ports
from tests.integration.tenant_server.postgres_fixture import (
    ADMIN,
    VERSIONS,
    TenantServer,
    running_server,
)


class Bells:
    """A doorbell nobody hears: the tests advance operations themselves."""

    async def ring(self, operation_id: UUID, queue: Queue) -> None:
        """Do nothing, as Redis does when it is away."""

    async def unheard(self, queue: Queue) -> int | None:
        """Nobody can tell."""


@pytest.fixture(scope="session")
def fleet() -> Iterator[dict[int, TenantServer]]:
    """One server of each version; the first also holds the catalog."""
    with running_server(VERSIONS[0]) as oldest, running_server(VERSIONS[1]) as newest:
        yield {oldest.version: oldest, newest.version: newest}


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, fleet: dict[int, TenantServer]) -> TenantServer:
    return fleet[request.param]


@pytest.fixture
async def ports(fleet: dict[int, TenantServer], tmp_path: Path) -> AsyncIterator[Ports]:
    """A process's ports on an empty catalog."""
    host = fleet[VERSIONS[0]]
    name = f"catalog_{uuid4().hex}"
    admin = await host.admin()
    await admin.execute(f"CREATE DATABASE {name}")
    settings = Settings(
        home=tmp_path,
        catalog_dsn=f"postgresql://{ADMIN}@127.0.0.1:{host.port}/{name}?sslmode=disable",
        catalog_password=host.password,
        redis_url="redis://127.0.0.1:1/0",
        redis_password=None,
        keyring_file=tmp_path / "keys" / "root.keys",
        server_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        templates={DEFAULT_TEMPLATE: REPOSITORY / "tenant_template"},
    )
    migrate(settings)
    Keyring.create(settings.keyring_file)
    templates = Templates(settings.templates)
    catalog = Catalog(settings)
    await catalog.open()
    yield Ports(
        settings, catalog, Keyring.load(settings.keyring_file), Bells(), templates, Programs()
    )
    await catalog.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def db(ports: Ports) -> AsyncIterator[Connection]:
    async with ports.catalog.connection() as connection:
        yield connection
