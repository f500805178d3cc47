"""PgBouncer's admin console over its Unix socket, each call with a deadline of its own."""

import asyncio
import os
import re
import socket
from collections.abc import Awaitable
from typing import Any, LiteralString, TypeVar

import msgspec
import psycopg
from psycopg import sql

from control_plane.config import PoolerSettings
from control_plane.domain.errors import PoolerUnavailable
from control_plane.router.pgbouncer_config import CONSOLE_USER, Entry

CONSOLE_DATABASE = "pgbouncer"
_CALL_SECONDS = 5.0
_NAME = re.compile(r"[a-z][a-z0-9-]*(_session)?", re.ASCII)

T = TypeVar("T")
Session = psycopg.AsyncConnection[tuple[Any, ...]]


class Served(msgspec.Struct, frozen=True):
    """One row of SHOW DATABASES: the entry and whether it is paused or disabled."""

    entry: Entry
    paused: bool
    disabled: bool


class Console:
    """Commands to one PgBouncer process over one connection that is made again when it is lost.

    ``session`` counts those connections, so that a caller notices a restart of PgBouncer.
    Every method raises ``PoolerUnavailable`` when PgBouncer does not answer in time or refuses.
    """

    def __init__(self, settings: PoolerSettings) -> None:
        self._settings = settings
        self._connection: Session | None = None
        self._lock = asyncio.Lock()
        self.session = 0

    async def version(self) -> str:
        """PgBouncer's version, such as ``1.18.0``."""
        rows = await self._rows("SHOW VERSION")
        return str(rows[0]["version"]).removeprefix("PgBouncer ").split()[0]

    async def reload(self) -> None:
        """Read the files again. PgBouncer says yes even if it could not: look afterwards."""
        await self._run(sql.SQL("RELOAD"))

    async def databases(self) -> dict[str, Served]:
        """What is really served, by name, without the console itself."""
        rows = await self._rows("SHOW DATABASES")
        return {row["name"]: _served(row) for row in rows if row["name"] != CONSOLE_DATABASE}

    async def pools(self) -> list[dict[str, Any]]:
        """SHOW POOLS: one row for each pair of database and login that was used."""
        return await self._rows("SHOW POOLS")

    async def stats(self) -> list[dict[str, Any]]:
        """SHOW STATS: one row of totals for each entry that was used."""
        return await self._rows("SHOW STATS")

    async def pause(self, name: str, seconds: float) -> bool:
        """Hold the clients of a database; whether all were held after ``seconds``.

        PAUSE waits for open transactions and, in session mode, for clients to leave, so it
        has a connection of its own. New queries wait from the first moment, and go on waiting
        when this returns False.
        """
        connection = await self._connect()
        try:
            await _within(seconds, connection, connection.execute(_command("PAUSE", name)))
        except TimeoutError:
            return False
        except psycopg.Error as error:
            raise _unavailable(error) from error
        finally:
            await connection.close()
        return True

    async def resume(self, name: str) -> None:
        """Let the clients of a database go on; nothing if it is not paused or not there."""
        try:
            await self._run(_command("RESUME", name))
        except PoolerUnavailable as error:
            if not _is_gone(error):
                raise

    async def reconnect(self, name: str) -> None:
        """Close each connection to the server as its client is done with it; no client notices."""
        await self._run(_command("RECONNECT", name))

    async def kill(self, name: str) -> None:
        """Drop every client and server connection of a database, which is left paused."""
        await self._run(_command("KILL", name))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _rows(self, query: LiteralString) -> list[dict[str, Any]]:
        cursor = await self._run(sql.SQL(query))
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]

    async def _run(self, command: sql.SQL | sql.Composed) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        async with self._lock:
            connection = await self._connected()
            try:
                return await _within(_CALL_SECONDS, connection, connection.execute(command))
            except (psycopg.Error, TimeoutError) as error:
                if connection.closed or isinstance(error, TimeoutError):
                    await self.close()
                raise _unavailable(error) from error
            except asyncio.CancelledError:
                await self.close()
                raise

    async def _connected(self) -> Session:
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
            self.session += 1
        return self._connection

    async def _connect(self) -> Session:
        settings = self._settings
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await psycopg.AsyncConnection.connect(
                    host=str(settings.socket_dir),
                    port=settings.port,
                    user=CONSOLE_USER,
                    password=settings.console_password.reveal(),
                    dbname=CONSOLE_DATABASE,
                    autocommit=True,
                    cursor_factory=psycopg.AsyncClientCursor,
                )
        except (psycopg.Error, TimeoutError) as error:
            raise _unavailable(error) from error


def _command(verb: LiteralString, name: str) -> sql.Composed:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a database entry")
    return sql.SQL(verb) + sql.SQL(" ") + sql.Identifier(name)


async def _within(seconds: float, connection: Session, call: Awaitable[T]) -> T:
    """The answer to ``call``, or TimeoutError after which the connection is of no use.

    psycopg answers a cancellation with a cancel request that PgBouncer's console never honours,
    and waits 5 s for it; hanging up ends the wait at once, and PgBouncer keeps the pause.
    """
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _hang_up(connection, task)
        raise
    if not done:
        await _hang_up(connection, task)
        raise TimeoutError
    return task.result()


async def _hang_up(connection: Session, task: "asyncio.Future[T]") -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _served(row: dict[str, Any]) -> Served:
    entry = Entry(
        host=row["host"] or "",
        port=row["port"],
        database=row["database"],
        pool_size=row["pool_size"],
        pool_mode=row["pool_mode"] or "",
    )
    return Served(entry, paused=bool(row["paused"]), disabled=bool(row["disabled"]))


def _unavailable(error: Exception) -> PoolerUnavailable:
    said = str(error).strip().splitlines()
    reason = said[0] if said else "no answer in time"
    return PoolerUnavailable(f"PgBouncer's console: {reason}")


def _is_gone(error: PoolerUnavailable) -> bool:
    return "is not paused" in error.message or "no such database" in error.message
