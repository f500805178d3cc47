"""A real API process on a real catalog, without workers: what it records stays as it is.

Redis is away on purpose: the API has to accept everything all the same.
"""

import datetime as dt
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy

from control_plane.adapters import clock
from control_plane.adapters.keyring import Keyring
from control_plane.bootstrap import make_ports
from control_plane.catalog import databases, leases, poolers, routes, servers, tenants
from control_plane.catalog.audit import Caller
from control_plane.catalog.leases import Lease, Outcome
from control_plane.catalog.migrate import migrate
from control_plane.catalog.poolers import Registration
from control_plane.catalog.routes import NewRoute
from control_plane.catalog.servers import Server
from control_plane.config import DEFAULT_TEMPLATE, REPOSITORY, Secret, Settings
from control_plane.domain.keys import Principal, Role
from control_plane.domain.names import parse
from control_plane.domain.operations import Operation
from control_plane.services.addresses import seal_admin_password
from control_plane.services.keys import NewKey, create_key
from control_plane.services.ports import Ports
from tests.integration.tenant_server.postgres_fixture import ADMIN, TenantServer

LEASE_SECONDS = 60.0
_START_SECONDS = 60.0
_NOWHERE = 1  # a port that nothing listens on


@dataclass
class World:
    """The running API, its catalog, and keys for every kind of caller."""

    url: str
    ports: Ports
    log: Path
    tokens: dict[str, str] = field(default_factory=dict)

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        """A client with this key; the key that may do everything unless one is given."""
        token = self.tokens["admin"] if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    async def key(
        self, *roles: Role, tenant: str | None = None, lifetime: dt.timedelta | None = None
    ) -> str:
        """The token of a new key."""
        wanted = NewKey("+".join(roles), roles, tenant=tenant, lifetime=lifetime)
        caller = Caller(Principal(clock.new_id(), "test", frozenset()))
        async with self.ports.catalog.transaction() as db:
            return (await create_key(db, caller, wanted)).plain_token

    async def new_tenant(self, slug: str) -> dict[str, Any]:
        """A tenant whose provisioning waits for a worker that never comes."""
        async with self.client() as client:
            answer = await client.post("/v1/tenants", json={"slug": slug, "name": slug})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def active_tenant(self, slug: str) -> None:
        """A tenant as it is after its provisioning, as far as the catalog knows."""
        operation = await self.new_tenant(slug)
        await self.work_off(operation["id"])
        async with self.ports.catalog.transaction() as db:
            tenant = await tenants.find(db, slug)
            database = await databases.primary(db, tenant.id)
            await tenants.change_state(db, tenant.id, expected="provisioning", wanted="active")
            await routes.put(
                db,
                NewRoute(
                    tenant_id=tenant.id,
                    cell_id=await tenants.cell_id(db, tenant.id),
                    alias=slug,
                    database_id=database.id,
                    generation=1,
                    pool_size=5,
                    session_pool_size=5,
                    endpoint_host="127.0.0.1",
                    endpoint_port=6432,
                ),
            )

    async def claim(self, operation_id: str) -> tuple[Operation, Lease]:
        """Hold an operation as a worker does."""
        key = parse("op", operation_id)
        assert key is not None
        async with self.ports.catalog.connection() as db:
            claimed = await leases.claim(db, key, owner="test", seconds=LEASE_SECONDS)
        assert claimed is not None
        return claimed

    async def work_off(self, operation_id: str) -> None:
        """End every step of an operation as a worker does, without doing any."""
        operation, lease = await self.claim(operation_id)
        for position in range(len(operation.steps)):
            await self.end_step(lease, position, last=position == len(operation.steps) - 1)

    async def end_step(self, lease: Lease, position: int, *, last: bool) -> None:
        async with self.ports.catalog.connection() as db:
            await leases.record(db, lease, Outcome(position, "done", None, last))


async def furnish(ports: Ports, postgres: TenantServer) -> None:
    """One cell with one pooler, one server that fits."""
    template = ports.templates.current(DEFAULT_TEMPLATE)
    async with ports.catalog.transaction() as db:
        cell = await routes.ensure_cell(db, clock.new_id(), "cell-1")
        await poolers.register(db, Registration(clock.new_id(), "p1", cell.id, "127.0.0.1", 6432))
        server = _server(ports, postgres)
        await servers.insert(db, server)
        await servers.change_state(db, server.id, expected=("enrolling",), wanted="active")
        await servers.record_template(
            db,
            server.id,
            template=template.name,
            fingerprint=template.fingerprint,
            revision=template.revision,
        )


def _server(ports: Ports, postgres: TenantServer) -> Server:
    server_id = clock.new_id()
    return Server(
        id=server_id,
        name="pg-a",
        host="127.0.0.1",
        hostaddr="127.0.0.1",
        port=postgres.port,
        admin_login=ADMIN,
        sealed_password=seal_admin_password(ports.keyring, server_id, postgres.password.reveal()),
        tls="disable",
        ca_pem=None,
        system_identifier=1,
        version_num=150020,
        region="local",
        tier=None,
        labels={},
        capacity=5000,
        placed=0,
        state="enrolling",
        preflight=[{"name": "version", "level": "ok", "found": "15.20", "wanted": "15 to 18"}],
        reachable=True,
        checked_at=clock.now(),
        problem=None,
        created_at=clock.now(),
    )


def make_catalog(postgres: TenantServer, name: str, home: Path) -> Settings:
    """A new migrated catalog database, and settings that name it."""
    keyring = home / "keys" / "root.keys"
    if not keyring.exists():
        Keyring.create(keyring)
    address = f"127.0.0.1:{postgres.port}"
    admin = sqlalchemy.create_engine(
        f"postgresql+psycopg://{ADMIN}:{postgres.password.reveal()}@{address}/postgres",
        isolation_level="AUTOCOMMIT",
        poolclass=sqlalchemy.NullPool,
    )
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    settings = Settings(
        home=home,
        catalog_dsn=f"postgresql://{ADMIN}@{address}/{name}",
        catalog_password=Secret(postgres.password.reveal()),
        redis_url=f"redis://127.0.0.1:{_NOWHERE}/0",
        redis_password=None,
        keyring_file=keyring,
        server_networks=(),
        templates={DEFAULT_TEMPLATE: REPOSITORY / "tenant_template"},
    )
    migrate(settings)
    return settings


@contextmanager
def running_api(
    settings: Settings, environment: Mapping[str, str], *, until: str = "/health/ready"
) -> Iterator[tuple[str, Path]]:
    """The API as its own process that answers ``until`` with 200; its URL and its log."""
    password = settings.home / "catalog.password"
    if settings.catalog_password is not None:
        password.write_text(settings.catalog_password.reveal())
    port, log = _free_port(), settings.home / "api.log"
    command = [
        *(sys.executable, "-m", "uvicorn", "control_plane.web:create_app", "--factory"),
        *("--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--no-proxy-headers"),
        *("--timeout-graceful-shutdown", "2"),
    ]
    given = {
        "TENANTRY_HOME": str(settings.home),
        "TENANTRY_CATALOG_DSN": settings.catalog_dsn,
        "TENANTRY_CATALOG_PASSWORD_FILE": str(password),
        "TENANTRY_REDIS_URL": settings.redis_url,
        "TENANTRY_KEYRING_FILE": str(settings.keyring_file),
        "TENANTRY_SERVER_NETWORKS": "127.0.0.1/32",
        **environment,
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, env={**kept, **given}, stdout=sink, stderr=sink, cwd=REPOSITORY
        )
    try:
        _wait_until_up(process, f"http://127.0.0.1:{port}{until}", log)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the API did not start:\n{log.read_text()[-3000:]}")


def open_ports_for(settings: Settings) -> Ports:
    """Ports of the test itself on the same catalog."""
    return make_ports(settings)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
