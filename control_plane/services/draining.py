"""A server emptied by moving its tenants away: in order, a few at a time, resumable at any moment.

Nothing is kept in a process: a tick looks what is left and begins what there is room for.
"""

from collections import Counter
from uuid import UUID

import msgspec
import structlog
from msgspec.structs import replace

from control_plane.catalog import audit, databases, drains, servers, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.databases import primary
from control_plane.catalog.drains import Drain
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.domain.errors import Conflict, NoCapacity
from control_plane.domain.operations import Operation
from control_plane.domain.placement import ServerCapacity, Wish, place
from control_plane.domain.tenants import Tenant
from control_plane.services.moves import NewMoveWish, begin_move
from control_plane.services.ports import Ports
from control_plane.services.servers import drain_server

_log = structlog.get_logger(__name__)


class Departure(msgspec.Struct, frozen=True):
    """Where a tenant would go as things are; ``problem`` says why it would stay."""

    tenant: Tenant
    target: str | None
    problem: str | None


async def drain_by_moves(db: Connection, caller: Caller, name: str, *, at_once: int) -> Server:
    """Place nothing new on this server, and move everything that is on it away.

    Raises:
        NotFound, WrongState: see ``drain_server``.
    """
    server = await drain_server(db, caller, name)
    await drains.begin(db, server.id, at_once=at_once, started_by=caller.principal.name)
    facts: dict[str, object] = {"at_once": at_once}
    await audit.record(db, caller, Entry("server.drain_by_moves", name, facts=facts))
    return server


async def plan_drain(db: Connection, name: str) -> list[Departure]:
    """Where each tenant of the server would go, one after the other; nothing is reserved.

    Raises:
        NotFound: there is no such server.
    """
    server = await servers.find(db, name)
    held = [one for one in await databases.on_server(db, server.id) if one.purpose == "primary"]
    snapshots: dict[tuple[str, str], list[ServerCapacity]] = {}
    taken: Counter[str] = Counter()
    departures = []
    for database in held:
        key = (database.template, database.template_fingerprint)
        if key not in snapshots:
            known = await servers.capacities(db, *key)
            snapshots[key] = [one for one in known if one.id != server.id]
        tenant = await tenants.get(db, database.tenant_id or database.id)
        filled = [replace(one, placed=one.placed + taken[one.name]) for one in snapshots[key]]
        departure = _departure(tenant, filled)
        departures.append(departure)
        taken[departure.target or ""] += 1
    return departures


def _departure(tenant: Tenant, others: list[ServerCapacity]) -> Departure:
    if tenant.state != "active":
        return Departure(tenant, None, f"it is {tenant.state}; only an active tenant can be moved")
    try:
        return Departure(tenant, place(Wish(tenant.tier, tenant.region), others).server, None)
    except NoCapacity as error:
        return Departure(tenant, None, error.message)


async def advance_drains(ports: Ports) -> None:
    """Begin the moves there is room for, and end what is done."""
    async with ports.catalog.connection() as db:
        every = await drains.every(db)
    for drain in every:
        await _advance(ports, drain)


async def _advance(ports: Ports, drain: Drain) -> None:
    async with ports.catalog.connection() as db:
        server = await servers.get(db, drain.server_id)
        room = drain.at_once - await drains.moving(db, drain.server_id)
        turn = await drains.next_tenants(db, drain.server_id, room) if room > 0 else []
        left = await drains.left(db, drain.server_id)
    if server.state != "draining" or left == 0:
        async with ports.catalog.transaction() as db:
            await drains.end(db, drain.server_id)
            facts: dict[str, object] = {"left": left}
            await audit.record_system(db, Entry("server.drained", server.name, facts=facts))
        return
    for tenant_id in turn:
        await _begin(ports, drain, tenant_id)


async def _begin(ports: Ports, drain: Drain, tenant_id: UUID) -> None:
    try:
        async with ports.catalog.transaction() as db:
            operation = await _move(db, drain, tenant_id)
            await drains.tell(db, drain.server_id, None)
    except NoCapacity as error:
        async with ports.catalog.connection() as db:
            await drains.tell(db, drain.server_id, error.message)
        return
    except Conflict as error:
        _log.info("drain_waits", tenant=str(tenant_id), reason=error.message)
        return
    await ports.doorbell.ring(operation.id, operation.queue)


async def _move(db: Connection, drain: Drain, tenant_id: UUID) -> Operation:
    tenant = await tenants.get(db, tenant_id)
    live = await primary(db, tenant_id)
    known = await servers.capacities(db, live.template, live.template_fingerprint)
    others = [server for server in known if server.id != drain.server_id]
    chosen = place(Wish(tenant.tier, tenant.region), others)
    return await begin_move(db, tenant, NewMoveWish(chosen.server), drain.started_by)
