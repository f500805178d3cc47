"""Clinics on throw-away servers: what one is, and how it is made."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.template_database import BuiltSchema, build_template
from control_plane.adapters.template_files import Templates
from control_plane.adapters.tenant_database import (
    Identity,
    create_tenant_database,
    read_identity,
    write_identity,
)
from control_plane.adapters.tenant_roles import ensure_role_set, open_login
from control_plane.adapters.tenant_schema import adopt_template, verify_tenant_database
from control_plane.config import DEFAULT_TEMPLATE, REPOSITORY, Secret
from control_plane.domain.names import RoleSet, database_name, template_name
from control_plane.domain.tenants import TIER_LIMITS
from tests.integration.tenant_server.postgres_fixture import TenantServer

TEMPLATE = REPOSITORY / "tenant_template"
TEMPLATES = Templates({DEFAULT_TEMPLATE: TEMPLATE})
REVISION = TEMPLATES.current(DEFAULT_TEMPLATE).revision
LIMITS = TIER_LIMITS["standard"].login
DENIED = "42501"
GONE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@dataclass(frozen=True)
class Place:
    """A server that was made ready: bootstrapped, with the closed template."""

    server: TenantServer
    template: str
    system_identifier: int


@dataclass(frozen=True)
class Clinic:
    """A tenant with everything, its first login open."""

    place: Place
    roles: RoleSet
    password: Secret

    @property
    def database(self) -> str:
        return database_name(self.roles.key)

    @property
    def identity(self) -> Identity:
        return Identity(self.roles.key, 1, "primary", self.place.system_identifier)

    async def app(self, database: str | None = None) -> Connection:
        return await self.place.server.login(
            self.roles.login_a, self.password, database or self.database
        )

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[Connection]:
        """The administrator, inside the clinic's database."""
        connection = await self.place.server.admin(self.database)
        try:
            yield connection
        finally:
            await connection.close()


async def unrecorded(_built: Sequence[BuiltSchema]) -> None:
    """Where there is no catalog."""


async def built_template(server: TenantServer, system_identifier: int) -> str:
    """The name of the clinic's template database, which ``server`` did not have."""
    template = TEMPLATES.current(DEFAULT_TEMPLATE)
    name = template_name(template.fingerprint)
    for first in (True, False):
        built = await build_template(
            server.address(), name, template, system_identifier, unrecorded
        )
        assert built is first
    return name


async def provision(place: Place, key: UUID | None = None) -> Clinic:
    """Every function twice, as two workers would that both believe it is their turn."""
    roles, password = RoleSet(key or uuid4()), scram.new_password()
    clinic = Clinic(place, roles, password)
    admin = await place.server.admin()
    for _ in range(2):
        await ensure_role_set(admin, roles, LIMITS)
    for first in (True, False):
        made = await create_tenant_database(
            admin, clinic.database, place.template, roles, place.system_identifier
        )
        assert made is first
    async with clinic.inside() as connection:
        assert await read_identity(connection) is None
        for _ in range(2):
            await adopt_template(connection, roles)
            await write_identity(connection, roles.key, 1, "primary")
            await verify_tenant_database(connection, roles, clinic.identity, REVISION)
    for _ in range(2):
        await open_login(admin, roles.login_a, scram.verifier(password), LIMITS)
    await admin.close()
    return clinic


async def system_identifier_of(connection: Connection) -> int:
    found = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    assert isinstance(found, int)
    return found


async def sqlstate(connection: Connection, statement: str) -> str | None:
    """The SQLSTATE ``statement`` fails with, ``None`` if it succeeds; nothing of it stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    finally:
        await transaction.rollback()
    return None


@asynccontextmanager
async def leased(
    admin: Connection, clinic: Clinic, role: str, database: str | None = None
) -> AsyncIterator[Connection]:
    """A role that normally may not log in, for a moment."""
    password = scram.new_password()
    await admin.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{scram.verifier(password)}'")
    try:
        connection = await clinic.place.server.login(role, password, database or clinic.database)
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await admin.execute(f"ALTER ROLE {role} NOLOGIN PASSWORD NULL")
