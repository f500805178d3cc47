"""``tenantry check``: compare catalog and reality, and mend what is provably safe."""

import asyncio
import datetime as dt
from contextlib import suppress
from uuid import UUID

import structlog

from control_plane.adapters import clock, tenant_database, tenant_roles
from control_plane.adapters.migrator_lease import lacking_roles
from control_plane.adapters.postgres_server import Connection, connect
from control_plane.adapters.providers.provider import Provider
from control_plane.catalog import (
    audit,
    catalog_life,
    databases,
    operations,
    provided_servers,
    routes,
    servers,
    tenants,
)
from control_plane.catalog.audit import Entry
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection as CatalogConnection
from control_plane.catalog.servers import Server
from control_plane.domain.backup_invariants import stored_findings
from control_plane.domain.catalog_backups import late_finding
from control_plane.domain.errors import Conflict, OperationInProgress, TenantMismatch, TenantryError
from control_plane.domain.invariants import Finding, findings
from control_plane.domain.plans import PLANS
from control_plane.domain.provider_invariants import FoundProvider, provider_findings
from control_plane.domain.tenants import TIER_LIMITS, LoginLimits, Tenant
from control_plane.services.addresses import server_address
from control_plane.services.ports import Ports
from control_plane.services.reality import gather
from control_plane.services.reclaiming import condemn
from control_plane.services.stored_reality import gather_stored

_log = structlog.get_logger(__name__)
_SETTLE_SECONDS = 1.0
_SESSION_NAME = "cp:repair"
# What a database says of itself that the catalog has for this purpose.
_STATES = {
    "primary": "primary",
    "pooled": "pooled",
    "previous": "previous",
    "moved_from": "previous",
    "moving": "scratch",
}


async def run_check(ports: Ports, *, deep: bool = True) -> list[Finding]:
    """Every difference between catalog and reality.

    Catalog and servers cannot be read at one instant, so a difference counts only when a second
    look finds it again. ``deep`` also looks inside every tenant database and into the store.
    """
    first = await _look(ports, deep=deep)
    if not first:
        return []
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), _SETTLE_SECONDS)
    again = {_same(finding) for finding in await _look(ports, deep=deep)}
    return [finding for finding in first if _same(finding) in again]


async def _look(ports: Ports, *, deep: bool) -> list[Finding]:
    found = findings(await gather(ports, deep=deep))
    if not deep:
        return found
    found += stored_findings(await gather_stored(ports))
    return [*found, *await _provided(ports), *await _catalog(ports)]


async def _provided(ports: Ports) -> list[Finding]:
    asked = [await _instances(provider) for provider in ports.providers.values()]
    async with ports.catalog.connection() as db:
        return provider_findings(await provided_servers.expected(db), asked)


async def _instances(provider: Provider) -> FoundProvider:
    try:
        found = await provider.every()
    except TenantryError as error:
        return FoundProvider(provider.kind, problem=error.message)
    living = [one for one in found if one.state != "deleting"]
    return FoundProvider(provider.kind, {one.key: one.name for one in living})


async def _catalog(ports: Ports) -> list[Finding]:
    """Whether the catalog itself is backed up as often as it should be."""
    if ports.store is None:
        return []
    async with ports.catalog.connection() as db:
        life = await catalog_life.read_life(db)
    interval = dt.timedelta(minutes=ports.settings.backup.catalog_minutes)
    return list(late_finding(life.age_seconds, interval))


async def repair_safe(ports: Ports, *, actor: str = "system") -> list[Finding]:
    """Mend every finding that has a safe repair; returns those that were mended.

    One that cannot be mended now is left for the next time and keeps no other from it.
    """
    repaired: list[Finding] = []
    for finding in await run_check(ports, deep=False):
        if finding.repair is None:
            continue
        try:
            await _repair(ports, finding, actor)
        except TenantryError as error:
            _log.warning("repair_failed", subject=finding.subject, error=error.message)
        else:
            repaired.append(finding)
    return repaired


async def _repair(ports: Ports, finding: Finding, actor: str) -> None:
    if finding.repair == "resume" and finding.key is not None:
        await _resume(ports, finding.key)
    elif finding.repair == "reset_login" and finding.key is not None:
        await _reset_logins(ports, finding.key)
    elif finding.repair == "reclaim" and finding.key is not None:
        await _reclaim(ports, finding.key, actor)
    elif finding.repair == "sweep_templates":
        await _sweep_templates(ports, finding.subject, actor)
    async with ports.catalog.connection() as db:
        facts: dict[str, object] = {"finding": finding.message, "repair": finding.repair}
        await audit.record_system(db, Entry("check.repair", finding.subject, facts=facts))


async def _resume(ports: Ports, tenant_id: UUID) -> None:
    async with ports.catalog.transaction() as db:
        route = await routes.find(db, tenant_id)
        if route is not None and route.paused_by is not None:
            await routes.end_pause(db, tenant_id, operation_id=route.paused_by)


async def _reset_logins(ports: Ports, database_id: UUID) -> None:
    """Put a login's password, limits and settings back, or close it (S-06).

    No operation on the tenant can begin meanwhile: the transaction holds the tenant's row.
    """
    async with ports.catalog.transaction() as db:
        database = await databases.get(db, database_id)
        tenant = await tenants.lock(db, database.tenant_id) if database.tenant_id else None
        if tenant is not None and tenant.operation_id is not None:
            return
        held = await databases.credentials(db, database.role_set_id)
        open_ones = (
            tenant is not None and database.purpose != "moved_from" and await _is_let_in(db, tenant)
        )
        wanted = {c.login: c.verifier for c in held.values() if open_ones and c.state != "revoked"}
        limits = (tenant.limits if tenant else TIER_LIMITS["standard"]).login
        server = await servers.get(db, database.server_id)
        await _require_identity(ports, server, database)
        connection = await _connect(ports, server)
        try:
            await _converge(connection, database, wanted, limits)
        finally:
            connection.terminate()


async def _require_identity(ports: Ports, server: Server, database: Database) -> None:
    """Who comes in is changed only where the database is what the catalog takes it for.

    After a failover that lost the catalog's last commits it may be the one that a tenant has left.

    Raises:
        TenantMismatch: it says that it is something else.
    """
    connection = await _connect(ports, server, database.name)
    try:
        found = await tenant_database.read_identity(connection)
    finally:
        connection.terminate()
    wanted = (database.tenant_id, _STATES.get(database.purpose))
    if found is None or (found.tenant_id, found.state) != wanted:
        raise TenantMismatch(
            f"{database.name} says that it is {found}; its logins stay as they are"
        )


async def _is_let_in(db: CatalogConnection, tenant: Tenant) -> bool:
    """A suspension that failed half-way stays a cut: its route is withdrawn already."""
    route = await routes.find(db, tenant.id)
    return tenant.state == "active" and (route is None or route.state == "published")


async def _converge(
    connection: Connection, database: Database, wanted: dict[str, str], limits: LoginLimits
) -> None:
    if await lacking_roles(connection, [database.roles]):
        await tenant_roles.ensure_role_set(connection, database.roles, limits)
        await tenant_database.open_to_roles(connection, database.name, database.roles)
    logins = (*database.roles.logins, database.roles.migrator)
    facts = await tenant_roles.inspect_logins(connection, logins)
    for login in logins:
        if login in wanted:
            await tenant_roles.open_login(connection, login, wanted[login], limits)
        elif login in facts and facts[login].can_login:
            await tenant_roles.close_login(connection, login)
            await tenant_roles.terminate_login_sessions(connection, [login])


async def _reclaim(ports: Ports, database_id: UUID, actor: str) -> None:
    async with ports.catalog.transaction() as db:
        database = await databases.find(db, database_id)
        if database is None or database.purpose not in ("preparing", "scratch", "condemned"):
            return
        with suppress(OperationInProgress):
            await condemn(db, database, actor)


async def _sweep_templates(ports: Ports, server_name: str, actor: str) -> None:
    """Enrol the server again: that builds what is lacking and drops what nobody knows."""
    async with ports.catalog.transaction() as db:
        server = await servers.find(db, server_name)
        with suppress(Conflict):
            await operations.insert(
                db,
                NewOperation(
                    id=clock.new_id(),
                    plan=PLANS["enrol"],
                    subject=server.name,
                    actor=actor,
                    server_id=server.id,
                ),
            )


async def _connect(ports: Ports, server: Server, database: str | None = None) -> Connection:
    address = server_address(ports.keyring, server)
    if database is None:
        return await connect(address, application_name=_SESSION_NAME)
    return await connect(address, database, _SESSION_NAME)


def _same(finding: Finding) -> tuple[str, str, str | None, UUID | None]:
    return finding.invariant, finding.subject, finding.repair, finding.key
