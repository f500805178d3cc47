"""A catalog, a tenant server, one cell of poolers, and clinics made by hand."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from control_plane.adapters.clock import new_id
from control_plane.adapters.scram import new_password, verifier
from control_plane.catalog import poolers, routes
from control_plane.catalog.pool import Catalog, Connection
from control_plane.catalog.poolers import Pooler
from control_plane.catalog.routes import NewRoute
from control_plane.config import DEFAULT_TEMPLATE, Secret, Settings
from control_plane.domain.names import RoleSet, Slot, database_name
from tests.integration.router.processes import ADMIN, LOCALHOST, Cluster, PoolerHome

CELL = "cell-1"
Client = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass
class Clinic:
    """One tenant: its alias, its database and the passwords of its logins."""

    id: UUID
    slug: str
    cell_id: UUID
    database_id: UUID
    passwords: dict[Slot, Secret] = field(default_factory=dict)
    verifiers: dict[Slot, str] = field(default_factory=dict)

    @property
    def roles(self) -> RoleSet:
        return RoleSet(self.id)


@dataclass
class World:
    """Everything that runs, and the moves that a worker would make."""

    base: Path
    catalog_server: Cluster
    tenant_server: Cluster
    settings: Settings
    catalog: Catalog
    poolers: list[PoolerHome]
    environment: dict[str, str]

    async def clinic(self, slug: str, cell: str = CELL, tls: str = "disable") -> Clinic:
        """A tenant with database, logins and catalog rows; its route is not published."""
        clinic = Clinic(new_id(), slug, UUID(int=0), new_id())
        clinic.passwords = {"a": new_password(), "b": new_password()}
        # One verifier for the server and the poolers: only then can a pooler pass the login on.
        clinic.verifiers = {slot: verifier(given) for slot, given in clinic.passwords.items()}
        await self._make_database(clinic)
        async with self.catalog.transaction() as db:
            clinic.cell_id = (await routes.ensure_cell(db, new_id(), cell)).id
            await self._record(db, clinic, await self._server(db, tls))
        return clinic

    async def publish(self, clinic: Clinic, database_id: UUID | None = None) -> int:
        route = NewRoute(
            tenant_id=clinic.id,
            cell_id=clinic.cell_id,
            alias=clinic.slug,
            database_id=database_id or clinic.database_id,
            generation=1,
            pool_size=5,
            session_pool_size=3,
            endpoint_host=LOCALHOST,
            endpoint_port=1,
        )
        async with self.catalog.transaction() as db:
            return await routes.put(db, route)

    async def touch(self, clinic: Clinic, state: routes.RouteState | None = None) -> int:
        async with self.catalog.transaction() as db:
            route = await routes.find(db, clinic.id)
            assert route is not None
            return await routes.touch(db, route, state)

    async def new_password(self, clinic: Clinic, slot: Slot) -> None:
        """Give one login another password, on the server and in the catalog."""
        clinic.passwords[slot] = new_password()
        made = verifier(clinic.passwords[slot])
        async with self.administrator() as admin:
            await admin.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(clinic.roles.login(slot)), made
                )
            )
        async with self.catalog.connection() as db:
            await db.execute(
                "UPDATE credentials SET verifier = $3 WHERE role_set_id = $1 AND slot = $2",
                clinic.id,
                slot,
                made,
            )

    async def serving(self, clinic: Clinic, version: int, seconds: float = 10) -> float:
        """Wait until every pooler of the clinic's cell serves this version; seconds it took."""
        started = time.perf_counter()
        while late := await self._behind(clinic.cell_id, version):
            if time.perf_counter() - started > seconds:
                raise TimeoutError(f"{[(p.name, p.served_version, p.problem) for p in late]}")
            await asyncio.sleep(0.001)
        return time.perf_counter() - started

    async def published_clinic(self, slug: str) -> Clinic:
        clinic = await self.clinic(slug)
        await self.serving(clinic, await self.publish(clinic))
        return clinic

    async def pooler(self, name: str) -> Pooler:
        async with self.catalog.connection() as db:
            return next(p for p in await poolers.every(db) if p.name == name)

    async def connect(
        self,
        clinic: Clinic,
        pooler: PoolerHome,
        *,
        session: bool = False,
        slot: Slot = "a",
        seconds: int = 20,
    ) -> Client:
        """What an application does, with the clinic's own login."""
        return await psycopg.AsyncConnection.connect(
            host=LOCALHOST,
            port=pooler.settings.port,
            dbname=clinic.slug + ("_session" if session else ""),
            user=clinic.roles.login(slot),
            password=clinic.passwords[slot].reveal(),
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=seconds,
        )

    @asynccontextmanager
    async def administrator(self, database: str = "postgres") -> AsyncIterator[Client]:
        async with await psycopg.AsyncConnection.connect(
            host=LOCALHOST,
            port=self.tenant_server.port,
            dbname=database,
            user=ADMIN,
            password=self.tenant_server.password.reveal(),
            autocommit=True,
        ) as connection:
            yield connection

    async def _behind(self, cell_id: UUID, version: int) -> list[Pooler]:
        async with self.catalog.connection() as db:
            return await poolers.behind(db, cell_id, version)

    async def make_database(self, clinic: Clinic, database_id: UUID) -> None:
        """A database of this clinic on the tenant server, closed to everybody else."""
        name = sql.Identifier(database_name(database_id))
        async with self.administrator() as admin:
            await admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(name))
            await admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
            for login in clinic.roles.logins:
                await admin.execute(
                    sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                        name, sql.Identifier(login)
                    )
                )

    async def record_database(self, db: Connection, clinic: Clinic, database_id: UUID) -> None:
        await db.execute(
            """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name,
                   template_fingerprint, purpose)
               SELECT $1, $2, $2, server_id, $3, '0123456789abcdef', 'condemned'
               FROM databases WHERE id = $4""",
            database_id,
            clinic.id,
            database_name(database_id),
            clinic.database_id,
        )

    async def _make_database(self, clinic: Clinic) -> None:
        async with self.administrator() as admin:
            for slot, made in clinic.verifiers.items():
                await admin.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(clinic.roles.login(slot)), made
                    )
                )
        await self.make_database(clinic, clinic.database_id)

    async def _server(self, db: Connection, tls: str) -> UUID:
        found: UUID | None = await db.fetchval("SELECT id FROM servers WHERE tls = $1", tls)
        if found is not None:
            return found
        server_id = new_id()
        await db.execute(
            """INSERT INTO servers (id, name, host, hostaddr, port, admin_login, sealed_password,
                   tls, ca_pem, system_identifier, version_num, capacity, state)
               VALUES ($1, $2, 'localhost', '127.0.0.1', $3, 'x', 'x', $4, $5, $6, 150000, 9999,
                   'active')""",
            server_id,
            f"pg-{tls}",
            self.tenant_server.port,
            tls,
            self.tenant_server.certificate,
            uuid4().int >> 66,
        )
        return server_id

    async def _record(self, db: Connection, clinic: Clinic, server_id: UUID) -> None:
        await db.execute("INSERT INTO role_sets (id) VALUES ($1)", clinic.id)
        for slot, made in clinic.verifiers.items():
            await db.execute(
                """INSERT INTO credentials (role_set_id, slot, version, sealed, verifier, state)
                   VALUES ($1, $2, 1, 'x', $3, $4)""",
                clinic.id,
                slot,
                made,
                "active" if slot == "a" else "next",
            )
        await db.execute(
            """INSERT INTO tenants (id, slug, name, tier, cell_id, placement_reason)
               VALUES ($1, $2, $2, 'standard', $3, 'test')""",
            clinic.id,
            clinic.slug,
            clinic.cell_id,
        )
        await db.execute(
            """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name,
                   template_fingerprint, purpose)
               VALUES ($1, $2, $2, $3, $4, '0123456789abcdef', 'primary')""",
            clinic.database_id,
            clinic.id,
            server_id,
            database_name(clinic.database_id),
        )


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float = 15) -> float:
    """Seconds until it was true."""
    started = time.perf_counter()
    while not await true():
        if time.perf_counter() - started > seconds:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.005)
    return time.perf_counter() - started


def settings_for(base: Path, catalog_server: Cluster) -> Settings:
    return Settings(
        home=base,
        catalog_dsn=catalog_server.dsn("tenantry"),
        catalog_password=catalog_server.password,
        redis_url="redis://127.0.0.1:1/0",
        redis_password=None,
        keyring_file=base / "root.keys",
        server_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        templates={DEFAULT_TEMPLATE: base},
    )
