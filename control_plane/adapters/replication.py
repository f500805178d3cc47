"""The sending side of logical replication: its slot, its publication, the role that streams.

Everything is named after the move (``domain.moves.Link``), may be made twice, and is gone when it
was dropped twice. The sending role may stream and nothing else. What receives is in
``subscriptions.py``; the marks that travel from one side to the other are here.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from control_plane.adapters import scram
from control_plane.adapters.administrator import abilities, attributes, reach
from control_plane.adapters.clock import new_id
from control_plane.adapters.postgres_server import Connection, connect, translated
from control_plane.adapters.schema_copy import Place
from control_plane.adapters.sql_text import fill
from control_plane.adapters.template_database import libpq_arguments
from control_plane.config import Secret
from control_plane.domain.administrators import STREAMING_ROLE
from control_plane.domain.errors import (
    ObjectInUse,
    ReplicationBroken,
    ServerRefused,
    ServerUnavailable,
)
from control_plane.domain.moves import Link, Table

MARKER = "cp_meta.move_marker"
_ITERATIONS = 4096
_SLOT_SECONDS = 60.0
_LOOKS = 500

_SENDER = """
{reach}
DO $body$ BEGIN
    IF to_regrole('{sender}') IS NULL THEN CREATE ROLE {sender}; END IF;
END $body$;
ALTER ROLE {sender} LOGIN PASSWORD {verifier} CONNECTION LIMIT 3 {streams};
GRANT CONNECT ON DATABASE {database} TO {sender};
"""
_LEND_STREAMING = f"GRANT {STREAMING_ROLE} TO {{sender}};"
_DROP_SENDER = """
DO $body$ BEGIN
    IF to_regrole('{sender}') IS NOT NULL THEN
        ALTER ROLE {sender} NOLOGIN;
        IF EXISTS (SELECT FROM pg_database WHERE '"' || datname || '"' = '{database}') THEN
            REVOKE ALL ON DATABASE {database} FROM {sender};
        END IF;
        DROP ROLE {sender};
    END IF;
END $body$;
"""
_SLOT = "SELECT active_pid, wal_status FROM pg_replication_slots WHERE slot_name = $1"
_WAITING = """
SELECT slot_name FROM pg_replication_slots
 WHERE slot_name = ANY ($1::text[]) AND active_pid IS NULL AND wal_status <> 'lost'
"""
_RETAINED = """
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
  FROM pg_replication_slots WHERE slot_name = $1
"""
_ERRORS = """
SELECT s.subenabled AS enabled, coalesce(x.apply_error_count, 0) AS errors
  FROM pg_subscription s LEFT JOIN pg_stat_subscription_stats x ON x.subid = s.oid
 WHERE s.subname = $1
"""
# The server tries again every few seconds; a connection that broke counts as well.
_MOST_ERRORS = 20


class Exported(msgspec.Struct, frozen=True):
    """A slot just made: what it will send comes after ``lsn``, all before is in ``snapshot``."""

    snapshot: str
    lsn: str


async def ensure_sender(admin: Connection, link: Link, database: str) -> Secret:
    """The login that streams this database's changes, with a new password."""
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    may = await abilities(admin)
    script = _SENDER if may.replication else _SENDER + _LEND_STREAMING
    with translated():
        await admin.execute(
            fill(
                script,
                sender=link.sender,
                verifier=verifier,
                database=database,
                reach=reach(may),
                streams=attributes(may, streams=True),
            )
        )
    return password


async def publish(inside: Connection, link: Link, tables: Sequence[Table]) -> None:
    """The changes of these tables, and of the marker, are offered.

    A table without a key gets the whole row as its identity; that costs a lock for a moment.
    """
    with translated():
        await drop_publication(inside, link)
        for table in tables:
            if not table.keyed:
                await inside.execute(f"ALTER TABLE {table.name} REPLICA IDENTITY FULL")
        offered = ", ".join([*(table.name for table in tables), MARKER])
        await inside.execute(
            fill("CREATE PUBLICATION {name}", name=link.name) + f" FOR TABLE {offered}"
        )


@asynccontextmanager
async def exported_slot(source: Place, link: Link) -> AsyncIterator[Exported]:
    """Make the slot; its snapshot can be used by other sessions until the block ends.

    The slot itself stays.

    Raises:
        ObjectInUse: a transaction somewhere on the server is open for longer than a minute.
        ServerUnavailable, ServerRefused: see ``postgres_server.connect``.
    """
    connection = await _streaming(source)
    try:
        with translated():
            yield await _make_slot(connection, link.name)
    finally:
        await connection.close()


async def may_stream(place: Place) -> bool:
    """Whether the server lets this login stream changes, whatever roles it has.

    Raises:
        ServerUnavailable, ServerRefused: it lets nobody in now; see ``postgres_server.connect``.
    """
    try:
        connection = await _streaming(place)
    except (ServerRefused, ServerUnavailable):
        # The driver does not tell one from the other: whoever is let in otherwise was refused.
        (await connect(place.address, place.database, place.session)).terminate()
        return False
    await connection.close()
    return True


async def _streaming(place: Place) -> "psycopg.AsyncConnection[Any]":
    with translated(), libpq_arguments(place.address, place.session) as arguments:
        return await psycopg.AsyncConnection.connect(
            host=place.address.host,
            port=place.address.port,
            user=place.address.user,
            password=place.address.password.reveal(),
            dbname=place.database,
            replication="database",
            autocommit=True,
            **arguments,  # type: ignore[arg-type]  # libpq takes every one of them as text
        )


@asynccontextmanager
async def exported_snapshot(inside: Connection) -> AsyncIterator[str]:
    """A snapshot of a database that nobody writes to, for other sessions, without a slot."""
    with translated():
        await inside.execute("SET idle_in_transaction_session_timeout = 0")
        async with inside.transaction(isolation="repeatable_read", readonly=True):
            yield str(await inside.fetchval("SELECT pg_export_snapshot()"))


async def database_exists(admin: Connection, name: str) -> bool:
    """Whether there is such a database that can be entered."""
    with translated():
        return bool(
            await admin.fetchval(
                "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datallowconn)", name
            )
        )


async def _make_slot(connection: "psycopg.AsyncConnection[Any]", name: str) -> Exported:
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        await connection.execute(f"SET {setting} = 0".encode())
    statement = fill(
        "CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'export')", name=name
    )
    cursor = await connection.execute(statement.encode())
    row = await cursor.fetchone()
    if row is None:
        raise ReplicationBroken(f"slot {name} was made without a snapshot")
    return Exported(snapshot=row[2], lsn=row[1])


async def ensure_slot(inside: Connection, link: Link) -> None:
    """A slot from now on, in the database ``inside`` is in; one that is there stays."""
    with translated():
        if await inside.fetchrow(_SLOT, link.name) is None:
            await inside.execute("SET statement_timeout = '60s'")
            await inside.execute(
                "SELECT pg_create_logical_replication_slot($1, 'pgoutput')",
                link.name,
                timeout=_SLOT_SECONDS,
            )


async def drop_slot(admin: Connection, link: Link) -> None:
    """The slot is gone, whoever streams from it.

    Raises:
        ObjectInUse: whoever streams does not end within about 5 seconds.
    """
    for _ in range(_LOOKS):
        with translated():
            row = await admin.fetchrow(_SLOT, link.name)
            if row is None:
                return
            if row["active_pid"] is None:
                await admin.execute("SELECT pg_drop_replication_slot($1)", link.name)
                return
            await admin.execute("SELECT pg_terminate_backend($1)", row["active_pid"])
            await admin.execute("SELECT pg_sleep(0.01)")
    raise ObjectInUse(f"replication slot {link.name} stays in use")


async def drop_publication(inside: Connection, link: Link) -> None:
    """Nothing is offered any more."""
    with translated():
        await inside.execute(fill("DROP PUBLICATION IF EXISTS {name}", name=link.name))


async def drop_sender(admin: Connection, link: Link, database: str) -> None:
    """The login that streamed from this database is gone."""
    with translated():
        await admin.execute(fill(_DROP_SENDER, sender=link.sender, database=database))


async def mark(inside: Connection) -> UUID:
    """A new row whose arrival on the other side proves that everything before it arrived."""
    marker = new_id()
    with translated():
        await inside.execute(f"INSERT INTO {MARKER} VALUES ($1)", marker)  # noqa: S608 - a constant
    return marker


async def arrived(inside: Connection, marker: UUID) -> bool:
    """Whether the marker is here."""
    with translated():
        return bool(
            await inside.fetchval(
                f"SELECT EXISTS (SELECT FROM {MARKER} WHERE id = $1)",  # noqa: S608 - a constant
                marker,
            )
        )


async def forget_markers(inside: Connection) -> None:
    """Markers have had their time."""
    with translated():
        if await inside.fetchval("SELECT to_regclass($1) IS NOT NULL", MARKER):
            await inside.execute(f"DELETE FROM {MARKER}")  # noqa: S608 - a constant


async def reset_identity(inside: Connection, keyless: Sequence[str]) -> None:
    """These tables tell of a changed row what they told before the move."""
    with translated():
        for name in keyless:
            if await inside.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
                await inside.execute(f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT")


async def require_healthy(sender: Connection, receiver: Connection, link: Link) -> None:
    """Make sure that changes still flow.

    Raises:
        ReplicationBroken: they never will again; the message says why.
    """
    with translated():
        slot = await sender.fetchrow(_SLOT, link.name)
        subscription = await receiver.fetchrow(_ERRORS, link.name)
    if slot is None or slot["wal_status"] == "lost":
        raise ReplicationBroken(
            "the source no longer keeps the changes that are still to be moved "
            "(max_slot_wal_keep_size was reached)"
        )
    if subscription is None or not subscription["enabled"]:
        raise ReplicationBroken("the subscription is gone or was switched off")
    if subscription["errors"] > _MOST_ERRORS:
        raise ReplicationBroken("a change cannot be applied; the receiving server's log says which")


async def waiting(admin: Connection, links: Sequence[Link]) -> list[Link]:
    """The links whose slot keeps changes here that nobody asks for now."""
    with translated():
        rows = await admin.fetch(_WAITING, [link.name for link in links])
    names = {row["slot_name"] for row in rows}
    return [link for link in links if link.name in names]


async def retained(admin: Connection, link: Link) -> int:
    """How many bytes of WAL the slot keeps on its server's disk."""
    with translated():
        return int(await admin.fetchval(_RETAINED, link.name) or 0)
