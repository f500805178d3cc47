"""Tenants' audit logs: sealed there, the seals anchored here, one verified against the other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from control_plane.adapters import tenant_audit
from control_plane.adapters.auditor_session import connect_as_auditor
from control_plane.adapters.postgres_server import Connection, connect, require_server
from control_plane.adapters.tenant_database import read_identity
from control_plane.catalog import databases, servers, upkeep
from control_plane.catalog.audit import Caller
from control_plane.catalog.databases import Database
from control_plane.catalog.upkeep import Chain
from control_plane.domain.audit_chain import (
    GENESIS,
    Anchor,
    Block,
    anchor_differences,
    block_differences,
)
from control_plane.domain.errors import SchemaMismatch, TenantMismatch, WrongState
from control_plane.domain.names import RoleSet
from control_plane.services.addresses import server_address
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_SESSION_NAME = "cp:audit"
_MOST_DIFFERENCES = 100


class Verification(msgspec.Struct, frozen=True):
    """What recomputing a tenant's chain showed; verified when ``differences`` is empty.

    ``waiting`` counts the lines of the log that are not sealed yet; nothing can be said of them.
    """

    tenant: str
    blocks: int
    rows: int
    anchored: int
    waiting: int
    differences: list[str]


@asynccontextmanager
async def inside(ports: Ports, database: Database, session: str) -> AsyncIterator[Connection]:
    """The administrator's connection to a tenant's database, which is proved to be the tenant's.

    Raises:
        ServerUnavailable, ServerRefused: see ``connect``.
        TenantMismatch: another server answers, or the database is another tenant's.
    """
    async with ports.catalog.connection() as db:
        server = await servers.get(db, database.server_id)
    connection = await connect(server_address(ports.keyring, server), database.name, session)
    try:
        await require_server(connection, server.system_identifier)
        found = await read_identity(connection)
        if found is None or found.tenant_id != database.tenant_id:
            raise TenantMismatch(f"database {database.name} says it is {found}")
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def auditing(ports: Ports, database: Database, session: str) -> AsyncIterator[Connection]:
    """The auditor's session in a tenant's database, which ``inside`` has proved to be the tenant's.

    Raises:
        ServerUnavailable, ServerRefused, ObjectInUse: see ``connect_as_auditor``.
        TenantMismatch: another server answers.
    """
    async with ports.catalog.connection() as db:
        server = await servers.get(db, database.server_id)
    address = server_address(ports.keyring, server)
    admin = await connect(address, application_name=session)
    try:
        await require_server(admin, server.system_identifier)
        connection = await connect_as_auditor(
            admin, address, database.name, database.roles, session
        )
    finally:
        admin.terminate()
    try:
        yield connection
    finally:
        connection.terminate()


async def seal_and_anchor(ports: Ports, connection: Connection, database: Database) -> None:
    """Seal what is settled and keep the new seals in the catalog; with no audit log, nothing.

    ``connection`` is the auditor's.

    Raises:
        SchemaMismatch: the database's chain does not continue what was anchored.
        ObjectInUse: see ``tenant_audit.seal``.
    """
    if database.tenant_id is None:
        return
    async with ports.catalog.connection() as db:
        chain = await upkeep.chain_of(db, database.tenant_id)
    last = chain.last
    if not await tenant_audit.has_audit_log(connection, database.roles):
        if last is not None:
            raise SchemaMismatch("the audit log is gone; restore the tenant from its backup")
        return
    await tenant_audit.seal_all(connection)
    if last is not None:
        end = await tenant_audit.read_chain_end(connection, last.block)
        if end.anchored_hash != last.block_hash:
            raise SchemaMismatch(
                f"audit block {last.block} is not the one that was anchored; "
                "see tenantry audit verify"
            )
    await _anchor_new(ports, connection, database.tenant_id, chain)


async def end_problem(
    connection: Connection, roles: RoleSet, last: Anchor | None, longest_lag: float
) -> str | None:
    """A cheap look at the end of the chain: what is wrong with it, if anything.

    ``connection`` is an administrator's. ``longest_lag`` is in seconds: how long a line of the log
    may wait for its seal.
    """
    anchored = last.block if last is not None else 0
    if not await tenant_audit.has_audit_log(connection, roles):
        return f"the audit log is gone; {anchored} blocks of it are anchored" if anchored else None
    end = await tenant_audit.look_at_chain_end(connection, roles, anchored)
    if last is not None and end.anchored_hash != last.block_hash:
        return f"audit block {anchored} is not the one that was anchored"
    if end.blocks < anchored:
        return f"{anchored} audit blocks are anchored, the database has {end.blocks}"
    if end.lag > longest_lag:
        return f"the audit log has not been sealed for {end.lag / 60:.0f} minutes"
    return None


async def verify(ports: Ports, caller: Caller, slug_or_id: str) -> Verification:
    """Recompute every block of a tenant's audit log from its rows; compare with the anchors.

    Raises:
        NotFound: there is no such tenant, or it has no database.
        WrongState: the tenant's template has no audit log, or its database is not where the
            catalog says.
        ServerUnavailable, ServerRefused: see ``inside``.
    """
    async with ports.catalog.connection() as db:
        tenant = await find_tenant(db, caller, slug_or_id)
        database = await databases.primary(db, tenant.id)
        kept = await upkeep.anchors(db, tenant.id)
    try:
        async with inside(ports, database, _SESSION_NAME) as connection:
            if await tenant_audit.has_audit_log(connection, database.roles):
                found = await _recomputed(ports, database, kept)
            elif kept:
                gone = f"the audit log is gone; {len(kept)} blocks of it are anchored"
                found = Verification("", 0, 0, len(kept), 0, [gone])
            else:
                raise WrongState(f"{tenant.slug} has no audit log: its template makes none")
    except TenantMismatch as error:
        raise WrongState(error.message) from error
    return msgspec.structs.replace(found, tenant=tenant.slug)


async def _recomputed(ports: Ports, database: Database, kept: dict[int, Anchor]) -> Verification:
    async with (
        auditing(ports, database, _SESSION_NAME) as connection,
        tenant_audit.snapshot(connection),
    ):
        return await recompute(connection, kept)


async def recompute(connection: Connection, kept: dict[int, Anchor]) -> Verification:
    differences: list[str] = []
    blocks, rows = 0, 0
    previous: Block | None = None
    left = dict(kept)
    async for block in tenant_audit.blocks_after(connection, 0):
        texts = await tenant_audit.block_rows(connection, block.block)
        differences += block_differences(block, texts, previous)
        if (anchor := left.pop(block.block, None)) is not None:
            differences += anchor_differences(anchor, block)
        blocks, rows, previous = blocks + 1, rows + len(texts), block
    for anchor in left.values():
        differences += anchor_differences(anchor, None)
    strays = await tenant_audit.find_strays(connection)
    if strays.unsealed:
        shown = ", ".join(map(str, strays.unsealed))
        differences.append(f"rows {shown} were slipped in behind the seals")
    found = differences[:_MOST_DIFFERENCES]
    return Verification("", blocks, rows, len(kept), strays.waiting, found)


async def _anchor_new(ports: Ports, connection: Connection, tenant_id: UUID, chain: Chain) -> None:
    """Also what a worker sealed that did not live to anchor it."""
    last = chain.last
    reached, previous = (last.block, last.block_hash) if last else (0, GENESIS)
    new: list[Anchor] = []
    async for block in tenant_audit.blocks_after(connection, reached):
        if block.prev_hash != previous:
            raise SchemaMismatch(
                f"audit block {block.block} does not continue block {reached}, as anchored; "
                "see tenantry audit verify"
            )
        new.append(block.anchor)
        reached, previous = block.block, block.block_hash
    if new:
        async with ports.catalog.transaction() as db:
            await upkeep.anchor(db, tenant_id, chain.line, new)
