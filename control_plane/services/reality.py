"""Gathering what is: every server, every pooler, beside what the catalog expects."""

import asyncio
from uuid import UUID

import msgspec

from control_plane.adapters import tenant_roles, tenant_schema
from control_plane.adapters.administrator import abilities
from control_plane.adapters.inventory import read_inventory
from control_plane.adapters.postgres_server import (
    Connection,
    ServerAddress,
    connect,
    require_server,
)
from control_plane.adapters.sequences import sequences_behind
from control_plane.adapters.tenant_database import Identity
from control_plane.catalog import databases, poolers, routes, servers, snapshot, upkeep
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection as CatalogConnection
from control_plane.catalog.poolers import Pooler
from control_plane.catalog.servers import Server
from control_plane.catalog.snapshot import Snapshot
from control_plane.domain.administrators import Abilities
from control_plane.domain.audit_chain import Anchor
from control_plane.domain.errors import TenantryError
from control_plane.domain.invariants import (
    ExpectedDatabase,
    FoundLogin,
    FoundPooler,
    FoundServer,
    World,
)
from control_plane.domain.names import RoleSet, template_name
from control_plane.router.pgbouncer_config import served_digest
from control_plane.services.addresses import server_address
from control_plane.services.audit_seals import end_problem
from control_plane.services.ports import Ports

_LOOKS_AT_ONCE = 4
_SESSION_NAME = "cp:check"
_SEAL_LAG_SECONDS = 3600.0


async def gather(ports: Ports, *, deep: bool) -> World:
    """Read the catalog in one snapshot, then every server; ``deep`` enters every database."""
    async with ports.catalog.snapshot() as db:
        known = await snapshot.read(db)
        fleet = [s for s in await servers.every(db) if s.name not in known.enrolling]
        held = {server.id: await databases.on_server(db, server.id) for server in fleet}
        sealed = await upkeep.last_anchors(db) if deep else {}
        found_poolers = [await _pooler(db, pooler) for pooler in await poolers.every(db)]
    gate = asyncio.Semaphore(_LOOKS_AT_ONCE)
    looks = [
        _Look(ports, server, known, gate, sealed).run(held[server.id] if deep else [])
        for server in fleet
    ]
    return World(
        databases=known.databases,
        routes=known.routes,
        servers=list(await asyncio.gather(*looks)),
        poolers=found_poolers,
        counters=known.counters,
        operations=known.operations,
        templates=frozenset((on, template_name(mark)) for on, mark in known.templates),
        live_operation_ids=known.live_operation_ids,
        moves=known.moves,
    )


async def _pooler(db: CatalogConnection, pooler: Pooler) -> FoundPooler:
    wanted = await routes.wanted(db, pooler.cell_id, newer_than=-1)
    return FoundPooler(
        name=pooler.name,
        alive=pooler.alive,
        behind=pooler.wanted_version - pooler.served_version,
        problem=pooler.problem,
        digest_matches=pooler.served_digest == served_digest(wanted),
    )


class _Inside(msgspec.Struct, frozen=True):
    """What is wrong in one database: with its schema, its audit log, its sequences."""

    database: str
    schema: str | None = None
    audit: str | None = None
    sequences: str = ""


class _Look:
    """One look at one server."""

    def __init__(
        self,
        ports: Ports,
        server: Server,
        known: Snapshot,
        gate: asyncio.Semaphore,
        sealed: dict[UUID, Anchor],
    ) -> None:
        self._ports = ports
        self._server = server
        self._expected = {d.id: d for d in known.databases if d.server == server.name}
        self._gate = gate
        self._sealed = sealed
        # A seal that was missed four times is late.
        self._longest_lag = max(_SEAL_LAG_SECONDS, 4 * 60 * ports.settings.upkeep_minutes)

    async def run(self, enter: list[Database]) -> FoundServer:
        try:
            return await self._look(enter)
        except TenantryError as error:
            return FoundServer(self._server.name, problem=error.message)

    async def _look(self, enter: list[Database]) -> FoundServer:
        address = server_address(self._ports.keyring, self._server)
        connection = await connect(address, application_name=_SESSION_NAME)
        try:
            await require_server(connection, self._server.system_identifier)
            inventory = await read_inventory(connection)
            logins = await self._logins(connection)
        finally:
            connection.terminate()
        settled = [d for d in enter if self._enterable(d) and inventory.databases.get(d.name)]
        inside = await asyncio.gather(*(self._enter(address, d) for d in settled))
        return FoundServer(
            name=self._server.name,
            databases=inventory.databases,
            roles=inventory.roles,
            logins=logins,
            session_operations=inventory.session_operations,
            links=inventory.links,
            schema_problems={one.database: one.schema for one in inside if one.schema},
            audit_problems={one.database: one.audit for one in inside if one.audit},
            sequence_problems={one.database: one.sequences for one in inside if one.sequences},
        )

    def _enterable(self, database: Database) -> bool:
        expected = self._expected.get(database.id)
        return (
            expected is not None
            and not expected.busy
            and database.purpose in ("primary", "pooled")
            and database.schema_revision is not None
        )

    async def _logins(self, connection: Connection) -> dict[str, FoundLogin]:
        wanted = {
            login: expected
            for expected in self._expected.values()
            for roles in (RoleSet(expected.role_set_id),)
            for login in (*roles.logins, roles.migrator)
        }
        may = await abilities(connection)
        facts = await tenant_roles.inspect_logins(connection, wanted)
        return {
            login: FoundLogin(
                fact.can_login,
                fact.verifier,
                _as_wanted(fact, wanted[login], may),
                fact.verifier_shown,
            )
            for login, fact in facts.items()
        }

    async def _enter(self, address: ServerAddress, database: Database) -> _Inside:
        identity = Identity(
            tenant_id=database.tenant_id,
            generation=database.generation,
            state="primary" if database.purpose == "primary" else "pooled",
            system_identifier=self._server.system_identifier,
        )
        async with self._gate:
            try:
                inside = await connect(address, database.name, _SESSION_NAME)
                try:
                    await tenant_schema.verify_tenant_database(
                        inside, database.roles, identity, database.schema_revision or ""
                    )
                    last = self._sealed.get(database.tenant_id) if database.tenant_id else None
                    audit = await end_problem(inside, database.roles, last, self._longest_lag)
                    # What moved or was restored brought its sequences along, one by one.
                    moved = database.purpose == "primary" and database.generation > 1
                    behind = await sequences_behind(inside, database.roles) if moved else []
                finally:
                    inside.terminate()
            except TenantryError as error:
                return _Inside(database.name, schema=error.message)
        return _Inside(database.name, audit=audit, sequences="; ".join(behind))


def _as_wanted(fact: tenant_roles.LoginFacts, expected: ExpectedDatabase, may: Abilities) -> bool:
    if expected.purpose != "primary":
        return True
    return (
        not fact.privileged
        and not fact.database_settings
        and fact.settings == tenant_roles.wanted_settings(expected.limits, may)
        and fact.connection_limit == tenant_roles.wanted_connection_limit(expected.limits)
    )
