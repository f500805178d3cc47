"""What may be asked for a server: add, list, drain, remove; and the watch over all of them."""

import asyncio
from collections import Counter
from uuid import UUID

import msgspec

from control_plane.adapters import clock, network, server_probe
from control_plane.catalog import (
    audit,
    databases,
    drains,
    operations,
    provided_servers,
    servers,
)
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.databases import Purpose
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server, ServerState
from control_plane.domain.errors import Conflict, Invalid, TenantryError, WrongState
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.providers import NEW_SERVER
from control_plane.services.addresses import seal_admin_password, server_address
from control_plane.services.enrolment import NewServer, Probed
from control_plane.services.ports import Ports
from control_plane.services.reclaiming import condemn

_LOOKS_AT_ONCE = 32


class Removal(msgspec.Struct, frozen=True):
    """Done when ``waits_for`` is ``None``; else it says what has to end before asking again."""

    server: Server
    waits_for: str | None = None
    reclaims: tuple[Operation, ...] = ()

    @property
    def removed(self) -> bool:
        return self.waits_for is None


async def add_server(
    db: Connection, ports: Ports, caller: Caller, wanted: NewServer, probed: Probed
) -> Operation:
    """Record the server as ``enrolling`` with the operation that makes it ready.

    Raises:
        Conflict: a server has this name, or is this very server under another name.
    """
    await refuse_name(db, wanted.name)
    actor = caller.principal.name
    operation = await record_server(db, ports, wanted, probed, actor=actor, key=clock.new_id())
    await audit.record(db, caller, Entry("server.add", wanted.name, facts=facts_of(wanted, probed)))
    return operation


async def refuse_name(db: Connection, name: str) -> None:
    """Check that nothing else is, or is going to be, a server of this name.

    Raises:
        Conflict: something is.
        Invalid: the word means something else where servers are named.
    """
    if name == NEW_SERVER:
        message = "this word is reserved; choose another"
        raise Invalid(f"server {name!r}: {message}", [{"field": "name", "message": message}])
    known = next((server for server in await servers.every(db) if server.name == name), None)
    if known is not None:
        remedy = (
            "retry its enrolment (tenantry operations retry), or remove it"
            if known.state == "enrolling"
            else "choose another name"
        )
        raise Conflict(f"there is a server {name} ({known.state}); {remedy}")
    made = await provided_servers.find(db, name)
    if made is not None:
        raise Conflict(f"{made.provider} makes a server {name} ({made.state}); choose another name")


async def record_server(
    db: Connection, ports: Ports, wanted: NewServer, probed: Probed, *, actor: str, key: UUID
) -> Operation:
    """Record the server under this id, and the operation that makes it ready.

    Raises:
        Conflict: a server has this name, or is this very server under another name.
    """
    await _refuse_same(db, wanted, probed)
    server = _new_server(ports, wanted, probed, key)
    try:
        async with db.transaction():
            await servers.insert(db, server)
    except Exception as error:
        if getattr(error, "constraint_name", None) not in ("servers_name", "servers_identity"):
            raise
        raise Conflict(f"{wanted.name} was enrolled by another request a moment ago") from error
    return await begin_enrolment(db, server, actor)


async def begin_enrolment(db: Connection, server: Server, actor: str) -> Operation:
    """Have the server made ready.

    Raises:
        OperationInProgress: that is being done.
    """
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["enrol"],
            subject=server.name,
            actor=actor,
            server_id=server.id,
        ),
    )


def facts_of(wanted: NewServer, probed: Probed) -> dict[str, object]:
    """What the audit log says of a server that was added."""
    return {
        "host": wanted.host,
        "port": wanted.port,
        "region": wanted.region,
        "tier": wanted.tier,
        "capacity": wanted.capacity,
        "tls": probed.tls,
        "advice": [check.name for check in probed.checks if check.level == "advice"],
    }


async def list_servers(db: Connection) -> list[Server]:
    """All living servers by name."""
    return await servers.every(db)


async def get_server(db: Connection, name: str) -> Server:
    """The living server with this name.

    Raises:
        NotFound: there is none.
    """
    return await servers.find(db, name)


async def drain_server(db: Connection, caller: Caller, name: str) -> Server:
    """Place nothing new on this server; what it holds stays. Doing it twice is no error.

    Raises:
        NotFound: there is none.
        WrongState: it is still being enrolled.
    """
    return await _change_state(db, caller, name, "active", "draining")


async def undrain_server(db: Connection, caller: Caller, name: str) -> Server:
    """Let placement use this server again. Doing it twice is no error.

    Raises:
        NotFound: there is none.
        WrongState: it is still being enrolled.
    """
    server = await _change_state(db, caller, name, "draining", "active")
    await drains.end(db, server.id)
    return server


async def remove_server(db: Connection, caller: Caller, name: str) -> Removal:
    """Take a server out of the fleet once it is empty; until then empty it of our own supplies.

    A server in use is drained by the first call, and its pool of ready databases is handed to
    reclaim operations; it is removed by a later call, when those are over.

    Raises:
        NotFound: there is none.
        Conflict: it holds tenants, and the message says how many; or a provider made it.
        OperationInProgress: a database of its pool is being worked on this moment.
    """
    server = await servers.find(db, name)
    made = await provided_servers.find(db, name)
    if made is not None:
        raise Conflict(
            f"{name} was made by {made.provider} and would run on; delete it instead: "
            f"tenantry servers delete {name}"
        )
    removal = await withdraw_server(db, server, caller.principal.name)
    if removal.removed:
        await audit.record(db, caller, Entry("server.remove", name))
    else:
        facts: dict[str, object] = {"waits_for": removal.waits_for}
        await audit.record(db, caller, Entry("server.empty", name, facts=facts))
    return removal


async def withdraw_server(db: Connection, server: Server, actor: str) -> Removal:
    """``remove_server``, whoever asks, and whoever made the server.

    Raises:
        Conflict, OperationInProgress: see there.
    """
    # Locks the row: from here on no request can reserve a place, hence none can claim a database.
    await servers.change_state(db, server.id, expected=("active",), wanted="draining")
    held = await databases.on_server(db, server.id)
    count = Counter(database.purpose for database in held)
    name = server.name
    if count["primary"]:
        raise Conflict(
            f"server {name} still holds {_many(count['primary'], 'tenant')}; move or delete first "
            f"(see: tenantry tenants list --server {name})"
        )
    if kept := count["moving"] + count["moved_from"]:
        raise Conflict(
            f"server {name} keeps {_many(kept, 'database')} of moves that are not over; end them "
            "with: tenantry move finish (or move reverse)"
        )
    if held or server.state == "active":
        pooled = [database for database in held if database.purpose == "pooled"]
        reclaims = tuple([await condemn(db, database, actor) for database in pooled])
        return Removal(await servers.get(db, server.id), _being_emptied(count), reclaims)
    await servers.remove(db, server)
    return Removal(await servers.get(db, server.id))


async def watch_servers(ports: Ports) -> None:
    """Look at every living server at once, and record who answers; audits what changed."""
    async with ports.catalog.connection() as db:
        living = await servers.every(db)
    turn = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def look(server: Server) -> str | None:
        async with turn:
            return await _problem(ports, server)

    problems = await asyncio.gather(*(look(server) for server in living))
    for server, problem in zip(living, problems, strict=True):
        await _record_health(ports, server, problem)


async def _refuse_same(db: Connection, wanted: NewServer, probed: Probed) -> None:
    for server in await servers.every(db):
        if server.system_identifier == probed.system_identifier:
            raise Conflict(
                f"{wanted.host}:{wanted.port} is server {server.name}, which is enrolled already "
                f"(system identifier {server.system_identifier})"
            )


def _new_server(ports: Ports, wanted: NewServer, probed: Probed, server_id: UUID) -> Server:
    return Server(
        id=server_id,
        name=wanted.name,
        host=wanted.host,
        hostaddr=probed.hostaddr,
        port=wanted.port,
        admin_login=wanted.user,
        sealed_password=seal_admin_password(ports.keyring, server_id, wanted.password.reveal()),
        tls=probed.tls,
        ca_pem=wanted.ca_pem,
        system_identifier=probed.system_identifier,
        version_num=probed.version_num,
        region=wanted.region,
        tier=wanted.tier,
        labels=wanted.labels,
        capacity=wanted.capacity,
        placed=0,
        state="enrolling",
        preflight=[msgspec.to_builtins(check) for check in probed.checks],
        reachable=True,
        checked_at=clock.now(),
        problem=None,
        created_at=clock.now(),
    )


async def _change_state(
    db: Connection, caller: Caller, name: str, expected: ServerState, wanted: ServerState
) -> Server:
    server = await servers.find(db, name)
    if not await servers.change_state(db, server.id, expected=(expected,), wanted=wanted):
        raise WrongState(f"server {name} is {server.state}; wait until its enrolment is over")
    action = "server.drain" if wanted == "draining" else "server.undrain"
    await audit.record(db, caller, Entry(action, name))
    return await servers.get(db, server.id)


def _being_emptied(count: Counter[Purpose]) -> str:
    parts = (
        (count["preparing"], "being prepared"),
        (count["pooled"] + count["condemned"], "being dropped"),
    )
    words = [f"{_many(number, 'database')} {doing}" for number, doing in parts if number]
    return " and ".join(words) or "requests that began before it was drained"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def _problem(ports: Ports, server: Server) -> str | None:
    """What is wrong with this server now, in words; one that has moved is followed."""
    problem = await _seen(ports, server)
    return None if problem is not None and await _followed(ports, server) else problem


async def _followed(ports: Ports, server: Server) -> bool:
    """Whether its name leads to it at another address, as after a failover of RDS.

    Only where certificates are verified: this one and the system identifier prove who answers.
    """
    if server.tls != "verify-full":
        return False
    try:
        hostaddr = await network.resolve(server.host, server.port, ports.settings.server_networks)
    except TenantryError:
        return False
    moved = msgspec.structs.replace(server, hostaddr=hostaddr)
    if hostaddr == server.hostaddr or await _seen(ports, moved) is not None:
        return False
    async with ports.catalog.transaction() as db:
        if await servers.readdress(db, server.id, server.hostaddr, hostaddr):
            facts: dict[str, object] = {"from": server.hostaddr, "to": hostaddr}
            await audit.record_system(db, Entry("server.readdressed", server.name, facts=facts))
    return True


async def _seen(ports: Ports, server: Server) -> str | None:
    """What is wrong with whoever answers at its address."""
    try:
        seen = await server_probe.glance(server_address(ports.keyring, server))
    except TenantryError as error:
        return error.message
    if seen.system_identifier != server.system_identifier:
        return (
            f"another server answers at this address (system identifier {seen.system_identifier}, "
            f"not {server.system_identifier}); put the enrolled one back"
        )
    if seen.in_recovery:
        return "it is a standby in recovery now; promote it or put the primary back"
    return None


async def _record_health(ports: Ports, server: Server, problem: str | None) -> None:
    async with ports.catalog.transaction() as db:
        changed = await servers.record_health(
            db, server.id, reachable=problem is None, problem=problem
        )
        if changed:
            action = "server.reachable" if problem is None else "server.unreachable"
            facts: dict[str, object] = {} if problem is None else {"problem": problem}
            await audit.record_system(db, Entry(action, server.name, facts=facts))
