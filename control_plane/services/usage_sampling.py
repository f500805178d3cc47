"""Sampling what tenants use: a round over each server, sizes seldom and a few at a time."""

import asyncio
import math
import time

import msgspec
import structlog

from control_plane.adapters import server_usage
from control_plane.adapters.postgres_server import connect
from control_plane.catalog import servers, usage
from control_plane.catalog.servers import Server
from control_plane.catalog.usage import Round
from control_plane.domain.errors import TenantryError
from control_plane.domain.usage import Look, Usage, between, carried
from control_plane.services.addresses import server_address
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_SESSION_NAME = "cp:usage"
_SERVERS_AT_ONCE = 8
_CONNECT_SECONDS = 3.0
# A worker that dies during a round keeps it for so long.
_PATIENCE_SECONDS = 30.0
# Two beats ring a little unevenly: less than this share of the interval is too soon.
_TOO_SOON = 0.6
_SIZES_HOURS = 1.0
_SIZES_LEAST = 4
_NEITHER = Usage()


async def sample_usage(ports: Ports) -> None:
    """A round over every server that answers; one that does not costs its timeout and no more."""
    async with ports.catalog.connection() as db:
        living = [server for server in await servers.every(db) if server.reachable]
    turn = asyncio.Semaphore(_SERVERS_AT_ONCE)

    async def take(server: Server) -> None:
        async with turn:
            await _take_round(ports, server)

    await asyncio.gather(*(take(server) for server in living))


async def roll_up_usage(ports: Ports) -> None:
    """Make quarters and days of what is over, and forget what was kept long enough."""
    async with ports.catalog.transaction() as db:
        await usage.roll_up(db)
    async with ports.catalog.connection() as db:
        await usage.prune(db)


async def _take_round(ports: Ports, server: Server) -> None:
    every = ports.settings.usage_seconds * _TOO_SOON
    async with ports.catalog.connection() as db:
        taken = await usage.begin_round(db, server.id, every=every, patience=_PATIENCE_SECONDS)
    if taken is None:
        return
    try:
        await _look(ports, server, taken)
    except TenantryError as error:
        _log.warning("usage_not_sampled", server=server.name, error=error.message)
        async with ports.catalog.connection() as db:
            await usage.give_up_round(db, taken, error.message)


async def _look(ports: Ports, server: Server, taken: Round) -> None:
    started = time.monotonic()
    at_once = _SIZES_LEAST + math.ceil(
        (server.placed * ports.settings.usage_seconds) / (_SIZES_HOURS * 3600)
    )
    async with ports.catalog.connection() as db:
        unsized = await usage.unsized(db, server.id, at_once, hours=_SIZES_HOURS)
    address = server_address(ports.keyring, server)
    connection = await connect(address, application_name=_SESSION_NAME, timeout=_CONNECT_SECONDS)
    try:
        found = await server_usage.look(connection)
        sizes = await server_usage.sizes(connection, unsized) if unsized else {}
    finally:
        connection.terminate()
    took_ms = (time.monotonic() - started) * 1000
    await _record(ports, taken, found, took_ms, sizes)


async def _record(
    ports: Ports, taken: Round, found: Look, took_ms: float, sizes: dict[str, int]
) -> None:
    before = msgspec.msgpack.decode(taken.counters, type=Look) if taken.counters else None
    used = {name: one for name, one in between(before, found).items() if not one.idle}
    counters = msgspec.msgpack.encode(carried(before, found))
    async with ports.catalog.transaction() as db:
        if not await usage.end_round(
            db, taken, counters=counters, databases=len(found.databases), took_ms=took_ms
        ):
            return
        if before is not None and found.at > before.at:
            # No database has an empty name: the server's row is there, however idle it is.
            await usage.add(db, taken.server_id, found.at - before.at, {"": _NEITHER, **used})
        if sizes:
            await usage.record_sizes(db, taken.server_id, sizes)
