"""What every table holds on both sides of a move, at one position of the source's WAL.

Clients write on. For the moment in which both sides are photographed writers wait, readers do not:
a lock on the tables, a marker, its arrival on the other side, two snapshots. The tables are then
read at leisure, each side in its snapshot.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from control_plane.adapters import replication
from control_plane.adapters.large_objects import digest_large_objects
from control_plane.adapters.postgres_server import Connection, connect, translated
from control_plane.adapters.schema_copy import Place
from control_plane.domain.backups import TableContent
from control_plane.domain.errors import ObjectInUse
from control_plane.domain.moves import Table

_LONG_SECONDS = 7 * 24 * 3600.0
_SESSION = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # The other core is for the clients.
    "max_parallel_workers_per_gather": "0",
}
# Autovacuum comes back by itself, and would keep a lock of its own for minutes.
_SHOO = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'autovacuum worker'
"""
_LOCK_MS = 250
_ARRIVAL_SECONDS = 0.5
_LOOK_SECONDS = 0.002


class Pair(msgspec.Struct, frozen=True):
    """Two snapshots of one moment; usable until the block that made them ends."""

    source: str
    target: str
    lsn: str
    held_ms: float


@asynccontextmanager
async def paired_snapshots(
    places: tuple[Place, Place],
    locking: Connection,
    marking: tuple[Connection, Connection],
    tables: Sequence[Table],
) -> AsyncIterator[Pair]:
    """Photograph both sides at one moment.

    ``locking`` is an administrator on the source with nothing else to do, ``marking`` are those
    inside both databases.

    Raises:
        ObjectInUse: writers could not be held, or changes arrive too late; try again.
        ServerUnavailable: one side went away.
    """
    opened: list[Connection] = []
    try:
        for place in places:
            opened.append(await _open(place))  # noqa: PERF401 - each is closed below
        yield await _photograph(locking, (opened[0], opened[1]), marking, tables)
    finally:
        for connection in opened:
            connection.terminate()


async def export_snapshot(inside: Connection) -> str:
    """A snapshot of now, usable by other sessions until ``inside`` ends its transaction."""
    with translated():
        await inside.execute(
            "SET idle_in_transaction_session_timeout = 0;"
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        )
        return str(await inside.fetchval("SELECT pg_export_snapshot()"))


async def read_tables(
    place: Place, tables: Sequence[Table], *, snapshot: str | None, at_once: int
) -> dict[str, TableContent]:
    """Count and digest of every table; ``snapshot`` is one that is open elsewhere.

    Raises:
        ServerRefused, UnexpectedDatabaseError: the snapshot is gone, or a table is.
        ServerUnavailable: the server went away.
    """
    waiting = sorted(tables, key=lambda table: -table.size)
    found: dict[str, TableContent] = {}

    async def work() -> None:
        connection = await connect(place.address, place.database, place.session, settings=_SESSION)
        try:
            with translated():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    if snapshot is not None:
                        await connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                    while waiting:
                        table = waiting.pop(0)
                        found[table.name] = await _read(connection, table)
        finally:
            connection.terminate()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, max(1, len(tables)))):
                group.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return found


async def read_large_objects(place: Place) -> TableContent:
    """Count and digest of the large objects of a database that nobody writes to."""
    connection = await connect(place.address, place.database, place.session, settings=_SESSION)
    try:
        found, digest = await digest_large_objects(connection)
    finally:
        connection.terminate()
    return TableContent(rows=found, digest=digest)


async def _read(connection: Connection, table: Table) -> TableContent:
    row = await connection.fetchrow(
        f"SELECT count(*) AS rows, coalesce(sum({table.digest}), 0)::text AS digest "  # noqa: S608
        f"FROM ONLY {table.name}",
        timeout=_LONG_SECONDS,
    )
    return TableContent(**dict(row or {}))


async def _open(place: Place) -> Connection:
    return await connect(place.address, place.database, place.session, settings=_SESSION)


async def _photograph(
    locking: Connection,
    photographers: tuple[Connection, Connection],
    marking: tuple[Connection, Connection],
    tables: Sequence[Table],
) -> Pair:
    here, there = photographers
    with translated():
        await locking.execute(_SHOO)
        await locking.execute(f"SET lock_timeout = {_LOCK_MS}; BEGIN")
        started = time.monotonic()
        try:
            if tables:
                named = ", ".join(f"ONLY {table.name}" for table in tables)
                await locking.execute(f"LOCK TABLE {named} IN SHARE MODE")
            async with asyncio.timeout(_ARRIVAL_SECONDS):
                source = await export_snapshot(here)
                await _arrival(*marking)
                target = await export_snapshot(there)
                lsn = await marking[0].fetchval("SELECT pg_current_wal_insert_lsn()::text")
        except TimeoutError as error:
            raise ObjectInUse("changes took too long to arrive on the new server") from error
        finally:
            await locking.execute("ROLLBACK")
    held = (time.monotonic() - started) * 1000
    return Pair(source=source, target=target, lsn=str(lsn), held_ms=round(held, 1))


async def _arrival(source: Connection, target: Connection) -> None:
    marker = await replication.mark(source)
    while not await replication.arrived(target, marker):
        with translated():
            await target.execute("SELECT pg_sleep($1)", _LOOK_SECONDS)
