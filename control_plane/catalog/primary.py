"""Which of the catalog's servers to work on, when its DSN names a primary and standbys.

It is the one that takes writes on the highest timeline: a promotion begins a new timeline. One that
takes writes on a lower timeline was replaced and came back; it is told so, where it keeps it, and
from then on nobody works from it, even who sees no other.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import structlog
from asyncpg.connect_utils import SessionAttribute
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from control_plane.config import SettingsError

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_log = structlog.get_logger(__name__)
_PORT = "5432"
# How long the other servers may take to answer once one was found that takes writes.
_OTHERS_SECONDS = 1.0
LOOK = """
    SELECT c.system_identifier, pg_is_in_recovery() AS standby,
           CASE WHEN NOT pg_is_in_recovery() THEN
               ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
           END AS timeline
    FROM pg_control_system() c
"""
# Nobody acknowledges what a primary that was replaced commits: it does not wait for that.
_DEPOSE = """
    SET LOCAL synchronous_commit = local;
    UPDATE catalog_place SET system_identifier = 0 WHERE system_identifier <> 0;
"""

Host = tuple[str, int]


class _Seen(msgspec.Struct, frozen=True):
    """A server that takes writes."""

    host: Host
    connection: Connection
    system_identifier: int
    timeline: int


class Primary:
    """The way to the catalog for one process, which never goes back to an earlier timeline."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._hosts = hosts_of(dsn)
        self._timeline = 0

    @property
    def is_one_of_several(self) -> bool:
        return len(self._hosts) > 1

    async def connect(self, _: str | None = None, /, **options: Any) -> Connection:  # noqa: ANN401 - asyncpg's own
        """A connection to the catalog; ``options`` are those of ``asyncpg.connect``.

        A pool calls it with the DSN, which is known here.

        Raises:
            OSError, asyncpg.PostgresError: no server that takes writes answers.
        """
        if not self.is_one_of_several:
            return await asyncpg.connect(self._dsn, **options)
        best = await self._best(options)
        self._timeline = best.timeline
        return best.connection

    async def _best(self, options: dict[str, Any]) -> _Seen:
        looks = [asyncio.create_task(_look(self._dsn, host, options)) for host in self._hosts]
        found, problems = await _gathered(looks)
        if not found:
            raise problems[0] if problems else ConnectionError("every server is a standby")
        found.sort(key=lambda seen: seen.timeline)
        *old, best = found
        for seen in old:
            if seen.timeline < best.timeline and seen.system_identifier == best.system_identifier:
                await _depose(seen)
            seen.connection.terminate()
        if best.timeline < self._timeline:
            await _depose(best)
            best.connection.terminate()
            raise ConnectionError("only a primary of the catalog that was replaced answers")
        return best


def hosts_of(dsn: str) -> list[Host]:
    """The servers that a DSN names.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        told = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        hosts = told.get("host", "").split(",")
        ports = told.get("port", _PORT).split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        return [(host, int(port or _PORT)) for host, port in zip(hosts, ports, strict=True)]
    except (ProgrammingError, ValueError) as error:
        raise SettingsError("TENANTRY_CATALOG_DSN cannot be read as a DSN") from error


async def _gathered(
    looks: Sequence["asyncio.Task[_Seen | None]"],
) -> tuple[list[_Seen], list[BaseException]]:
    """Who takes writes, and what is wrong with the others; nobody is waited for too long."""
    found: list[_Seen] = []
    problems: list[BaseException] = []
    left = set(looks)
    while left:
        limit = _OTHERS_SECONDS if found else None
        done, left = await asyncio.wait(left, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for look in done:
            problem = look.exception()
            seen = None if problem else look.result()
            found += [seen] if seen else []
            problems += [problem] if problem else []
    for look in left:
        look.cancel()
    if left:
        await asyncio.wait(left)
    return found, problems


async def _look(dsn: str, host: Host, options: dict[str, Any]) -> _Seen | None:
    """The server, if it takes writes."""
    connection = await _reach(dsn, host, options)
    row = None
    try:
        row = await connection.fetchrow(LOOK)
    finally:
        if row is None or row["standby"]:
            connection.terminate()
    if row is None or row["standby"]:
        return None
    return _Seen(host, connection, row["system_identifier"], row["timeline"])


async def _reach(dsn: str, host: Host, options: dict[str, Any]) -> Connection:
    whatever = {"host": host[0], "port": host[1], "target_session_attrs": SessionAttribute.any}
    connection: Connection = await asyncpg.connect(dsn, **(options | whatever))
    return connection


async def _depose(seen: _Seen) -> None:
    """Let a primary that was replaced know it, as long as it lives as one."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        if await seen.connection.execute(_DEPOSE) != "UPDATE 0":
            _log.warning("old_primary_deposed", host=seen.host[0], port=seen.host[1])
