"""Links of moves that have lost their sender: it is at another address now, and they are told.

A subscription keeps the address that its sender had when it was made. A server that is followed to
another one (``services.servers``) would never be asked for changes again.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog

from control_plane.adapters import replication, subscriptions
from control_plane.adapters.postgres_server import Connection, ServerAddress, connect
from control_plane.catalog import databases, moves, servers, tenants
from control_plane.catalog.moves import Move
from control_plane.catalog.pool import Connection as CatalogConnection
from control_plane.domain.errors import TenantryError
from control_plane.domain.moves import Link
from control_plane.services.addresses import server_address
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_SESSION_NAME = "cp:links"


async def redial(
    admin: Connection, receiver: Connection, link: Link, address: ServerAddress, database: str
) -> bool:
    """Where nobody asks for the changes of a link, tell the receiver anew where they are.

    ``admin`` is in ``postgres`` on the sending server, which is at ``address`` now, ``receiver``
    inside the receiving database; changes are those of ``database``. Returns whether it was told.
    """
    if not await replication.waiting(admin, [link]):
        return False
    if not await subscriptions.is_enabled(receiver, link):
        return False
    password = await replication.ensure_sender(admin, link, database)
    await subscriptions.redial(
        receiver, link, subscriptions.Subscription(address, database, password)
    )
    return True


async def redial_ways_back(ports: Ports) -> None:
    """Every way back whose sender has another address finds it again.

    A move that is under way sees to itself.
    """
    async with ports.catalog.connection() as db:
        held = [m for m in await moves.every_open(db) if m.state == "reversible"]
    by_sender: dict[UUID, list[Move]] = defaultdict(list)
    for move in held:
        by_sender[move.target_server_id].append(move)
    for server_id, several in by_sender.items():
        waiting: list[Move] = []
        with _left_for_later():
            waiting = await _waiting(ports, server_id, several)
        for move in waiting:
            with _left_for_later():
                await _redial(ports, move)


@contextmanager
def _left_for_later() -> Iterator[None]:
    try:
        yield
    except TenantryError as error:
        _log.info("way_back_waits", error=error.message)


async def _waiting(ports: Ports, server_id: UUID, held: list[Move]) -> list[Move]:
    async with ports.catalog.connection() as db:
        server = await servers.get(db, server_id)
    admin = await connect(server_address(ports.keyring, server), application_name=_SESSION_NAME)
    try:
        waiting = await replication.waiting(admin, [move.way_back for move in held])
    finally:
        admin.terminate()
    return [move for move in held if move.way_back in waiting]


async def _redial(ports: Ports, move: Move) -> None:
    """No operation on the tenant can begin meanwhile: the transaction holds the tenant's row."""
    async with ports.catalog.transaction() as db:
        tenant = await tenants.lock(db, move.tenant_id)
        now = await moves.open_one(db, move.tenant_id)
        if tenant.operation_id is not None or now is None or now.state != "reversible":
            return
        told = await _told(ports, db, now)
    if told:
        _log.info("way_back_redialed", tenant=tenant.slug)


async def _told(ports: Ports, db: CatalogConnection, move: Move) -> bool:
    sending = await databases.get(db, move.target_database_id)
    receiving = await databases.get(db, move.source_database_id)
    address = server_address(ports.keyring, await servers.get(db, sending.server_id))
    old = await servers.get(db, receiving.server_id)
    if not old.reachable:
        return False
    receiver = await connect(server_address(ports.keyring, old), receiving.name, _SESSION_NAME)
    try:
        admin = await connect(address, application_name=_SESSION_NAME)
        try:
            return await redial(admin, receiver, move.way_back, address, sending.name)
        finally:
            admin.terminate()
    finally:
        receiver.terminate()
