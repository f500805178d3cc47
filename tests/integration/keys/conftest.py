"""An installation with a catalog, a key file and a keystore, and as many processes as a test wants.

There is no worker: tests advance operations themselves.
"""

import ipaddress
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from control_plane.adapters import clock
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.kms import LocalKms
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.template_files import Templates
from control_plane.catalog import databases, routes, tenants
from control_plane.catalog.audit import Caller
from control_plane.catalog.migrate import migrate
from control_plane.catalog.pool import Catalog
from control_plane.catalog.tenants import NewRow
from control_plane.config import DEFAULT_TEMPLATE, REPOSITORY, EngineSettings, Secret, Settings
from control_plane.domain.keys import Principal
from control_plane.domain.operations import Queue
from control_plane.router.credentials import new_credential
from control_plane.services.ports import Ports
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server

PASSWORD = "of-the-owner"
CALLER = Caller(Principal(UUID(int=1), "keeper", frozenset({"security_admin"})))


class Bells:
    """A doorbell nobody hears."""

    async def ring(self, operation_id: UUID, queue: Queue) -> None:
        """Do nothing, as Redis does when it is away."""

    async def unheard(self, queue: Queue) -> int | None:
        """Nobody can tell."""


@dataclass(frozen=True)
class Installation:
    """What all processes share: settings, the catalog, the directory of the keystore."""

    settings: Settings
    catalog: Catalog

    @property
    def store(self) -> Path:
        return self.settings.home / "store"

    @property
    def backups(self) -> Path:
        return self.settings.home / "backups"

    def process(self, store: ObjectStore | None = None) -> Ports:
        """The ports of a process that has just been started."""
        keyring = Keyring.load(self.settings.keyring_file)
        keystore = Keystore(store or FileStore(self.store), LocalKms(keyring))
        return msgspec.structs.replace(self.process_without_keystore(), keystore=keystore)

    def process_without_keystore(self) -> Ports:
        keyring = Keyring.load(self.settings.keyring_file)
        templates = Templates(self.settings.templates)
        return Ports(self.settings, self.catalog, keyring, Bells(), templates, Programs())

    async def tenant(self, slug: str) -> UUID:
        """An active tenant with one credential, as far as the catalog knows."""
        tenant_id = clock.new_id()
        keyring = Keyring.load(self.settings.keyring_file)
        async with self.catalog.transaction() as db:
            cell = await routes.ensure_cell(db, clock.new_id(), "cell-1")
            await databases.insert_role_set(db, tenant_id)
            await databases.put_credential(
                db, new_credential(keyring, tenant_id, "a", version=1, state="active")
            )
            await tenants.insert(
                db,
                NewRow(
                    id=tenant_id,
                    slug=slug,
                    name=slug,
                    tier="standard",
                    template=DEFAULT_TEMPLATE,
                    region=None,
                    labels={},
                    cell_id=cell.id,
                    placement_reason="a test",
                ),
            )
            await tenants.change_state(db, tenant_id, expected="provisioning", wanted="active")
        return tenant_id


@pytest.fixture(scope="session")
def keys_postgres() -> Iterator[TenantServer]:
    with running_server(15) as running:
        yield running


@pytest.fixture
async def installation(keys_postgres: TenantServer, tmp_path: Path) -> AsyncIterator[Installation]:
    name = f"catalog_{uuid4().hex}"
    admin = await keys_postgres.admin()
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    settings = Settings(
        home=tmp_path,
        catalog_dsn=f"postgresql://{name}@127.0.0.1:{keys_postgres.port}/{name}?sslmode=disable",
        catalog_password=Secret(PASSWORD),
        redis_url="redis://127.0.0.1:1/0",
        redis_password=None,
        keyring_file=tmp_path / "keys" / "root.keys",
        server_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        templates={DEFAULT_TEMPLATE: REPOSITORY / "tenant_template"},
        engine=EngineSettings(retry_cap_seconds=0),
    )
    for directory in ("store", "backups"):
        (tmp_path / directory).mkdir()
    migrate(settings)
    Keyring.create(settings.keyring_file)
    catalog = Catalog(settings)
    await catalog.open(max_size=16)
    yield Installation(settings, catalog)
    await catalog.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.execute(f"DROP ROLE {name}")
    await admin.close()
