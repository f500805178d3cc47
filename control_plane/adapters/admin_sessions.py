"""Maintenance sessions: named after their operation, one at a time per operation, kept warm."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from control_plane.adapters.administrator import forget
from control_plane.adapters.postgres_server import Connection, ServerAddress, connect, translated
from control_plane.domain.errors import ObjectInUse, ServerUnavailable

IDLE_NAME = "cp:idle"
_LOOKS = 500
# A session that passed its login check a moment ago is not yet in pg_stat_activity: look again.
_EMPTY_LOOKS = 2

# The usual case in one round trip: the name is taken, the lock is free, nobody is left over.
_CLAIM = """
SELECT set_config('application_name', $1, false) AS name,
       pg_try_advisory_lock(hashtextextended($2, 0)) AS locked,
       EXISTS (SELECT FROM pg_stat_activity
                WHERE starts_with(application_name, $2 || ':') AND application_name <> $1) AS stale
"""
_LOCK = "SELECT pg_advisory_lock(hashtextextended($1, 0))"
_TERMINATE_NAMED = """
SELECT pid, pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE starts_with(application_name, $1) AND application_name <> $2
   AND pid <> pg_backend_pid()
   AND CASE WHEN substr(application_name, length($1) + 1) ~ '^[0-9]{1,18}$'
             AND substr($2, length($1) + 1) ~ '^[0-9]{1,18}$'
            THEN substr(application_name, length($1) + 1)::bigint
                 < substr($2, length($1) + 1)::bigint
            ELSE true END
"""
_TERMINATE_LOGINS = """
SELECT pid, pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE usename = ANY ($1::text[]) AND pid <> pg_backend_pid()
"""


class AdminSessions:
    """The maintenance connections of one process, at most ``max_idle`` kept per server.

    Use it from one event loop only.
    """

    def __init__(self, max_idle: int = 2) -> None:
        self._max_idle = max_idle
        self._idle: dict[tuple[UUID, bytes], list[Connection]] = {}

    @asynccontextmanager
    async def session(
        self, server_id: UUID, address: ServerAddress, name: str
    ) -> AsyncIterator[Connection]:
        """A connection to ``postgres`` called ``name`` (``cp:<operation>:<epoch>``).

        Sessions of the same operation with an older epoch are terminated first. While the
        connection is out it holds the server-wide advisory lock of the operation, which is the
        part of ``name`` before the last colon. After an error the connection is thrown away.

        Raises:
            ServerUnavailable, ServerRefused: see ``connect``.
            ObjectInUse: another session of this operation kept the lock for 10 seconds.
        """
        key = (server_id, _fingerprint(address))
        connection = await self._claimed(key, address, name)
        try:
            with translated():
                yield connection
        except BaseException:
            connection.terminate()
            raise
        await self._give_back(key, connection)

    async def close(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.terminate()

    async def _claimed(
        self, key: tuple[UUID, bytes], address: ServerAddress, name: str
    ) -> Connection:
        if (warm := self._pop_idle(key)) is not None:
            try:
                return await _claim(warm, name)
            except ServerUnavailable:
                self._forget(key)
        return await _claim(await connect(address, application_name=IDLE_NAME), name)

    def _pop_idle(self, key: tuple[UUID, bytes]) -> Connection | None:
        for stale in [k for k in self._idle if k[0] == key[0] and k != key]:
            self._forget(stale)
        connections = self._idle.get(key, [])
        while connections:
            connection = connections.pop()
            if not connection.is_closed():
                return connection
        return None

    def _forget(self, key: tuple[UUID, bytes]) -> None:
        for connection in self._idle.pop(key, []):
            connection.terminate()

    async def _give_back(self, key: tuple[UUID, bytes], connection: Connection) -> None:
        try:
            # Rolls back, unlocks every advisory lock and puts every setting back.
            await connection.reset()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            connection.terminate()
            return
        forget(connection)
        connections = self._idle.setdefault(key, [])
        if len(connections) < self._max_idle:
            connections.append(connection)
        else:
            connection.terminate()


async def terminate_stale(connection: Connection, prefix: str, keep: str) -> int:
    """End the sessions whose application_name starts with ``prefix``, and wait until they are gone.

    Spared are this session, those called ``keep``, and, where both names end in a number after
    the prefix, those with a higher one: a worker that wakes up late cannot end its successor.

    Raises:
        ObjectInUse: one of them did not end within about 5 seconds.
    """
    return await _terminate(connection, _TERMINATE_NAMED, prefix, keep)


async def terminate_logins(connection: Connection, logins: list[str]) -> int:
    """End every session of these logins, and wait until they are gone; how many there were.

    Raises:
        ObjectInUse: one of them did not end within about 5 seconds.
    """
    return await _terminate(connection, _TERMINATE_LOGINS, logins, empty_looks=_EMPTY_LOOKS)


async def _terminate(
    connection: Connection, query: str, *values: object, empty_looks: int = 1
) -> int:
    seen: set[int] = set()
    found: set[int] = set()
    empty = 0
    for _ in range(_LOOKS):
        with translated():
            found = {row["pid"] for row in await connection.fetch(query, *values)}
            seen |= found
            empty = 0 if found else empty + 1
            if empty == empty_looks:
                return len(seen)
            # The server waits, not this process's event loop.
            await connection.execute("SELECT pg_sleep(0.01)")
    raise ObjectInUse(f"{len(found)} sessions do not end; look at pg_stat_activity for {values}")


async def _claim(connection: Connection, name: str) -> Connection:
    operation = name.rpartition(":")[0] or name
    try:
        with translated():
            found = await connection.fetchrow(_CLAIM, name, operation)
            if found is None or found["stale"] or not found["locked"]:
                await terminate_stale(connection, f"{operation}:", name)
            if found is None or not found["locked"]:
                await connection.execute(_LOCK, operation)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _fingerprint(address: ServerAddress) -> bytes:
    facts = (address.host, address.hostaddr, address.port, address.user, address.tls)
    secret = (address.password.reveal(), address.ca_pem)
    return hashlib.sha256(repr((facts, secret)).encode()).digest()
