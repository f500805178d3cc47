"""Connecting exactly as a tenant's application would, to see whether it works or is refused."""

import asyncio
from contextlib import suppress
from uuid import UUID

import asyncpg
import msgspec

from control_plane.adapters.scram_only import check_authenticated, scram_required
from control_plane.config import Secret

_TIMEOUT_SECONDS = 5.0
_REFUSALS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_END_BACKEND = "SELECT pg_terminate_backend(pg_backend_pid())"
_WHO_AM_I = """
    SELECT current_user::text AS login, current_database()::text AS database, tenant_id
    FROM cp_meta.identity
"""


class Endpoint(msgspec.Struct, frozen=True):
    """One door: a pooler's alias, or a server directly. ``name`` is for people.

    ``keep_warm`` leaves the pooler's connection to the server open for the application that
    comes next. Elsewhere it is ended: a pooler keeps idle ones for a while, and hundreds of new
    tenants would use up the server's connections.
    """

    name: str
    host: str
    port: int
    database: str
    keep_warm: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What came of one attempt; ``refusal`` is ``None`` when the login got in."""

    endpoint: str
    tenant_id: UUID | None
    login: str | None
    refusal: str | None


async def try_login(endpoint: Endpoint, login: str, password: Secret) -> Answer:
    """One connection, one question, and out again."""
    try:
        with scram_required():
            connection = await asyncpg.connect(
                host=endpoint.host,
                port=endpoint.port,
                database=endpoint.database,
                user=login,
                password=password.reveal(),
                timeout=_TIMEOUT_SECONDS,
                command_timeout=_TIMEOUT_SECONDS,
                statement_cache_size=0,
                ssl=False,
            )
        check_authenticated(connection)
    except _REFUSALS as error:
        return _refused(endpoint, error)
    try:
        row = await connection.fetchrow(_WHO_AM_I)
        if not endpoint.keep_warm:
            with suppress(*_REFUSALS):
                await connection.execute(_END_BACKEND)
    except _REFUSALS as error:
        return _refused(endpoint, error)
    finally:
        connection.terminate()
    if row is None:
        return Answer(endpoint.name, None, login, "the database carries no identity")
    return Answer(endpoint.name, row["tenant_id"], row["login"], None)


async def try_everywhere(endpoints: list[Endpoint], login: str, password: Secret) -> list[Answer]:
    """``try_login`` at every endpoint at once."""
    return await asyncio.gather(*(try_login(door, login, password) for door in endpoints))


def _refused(endpoint: Endpoint, error: BaseException) -> Answer:
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Answer(endpoint.name, None, None, words)
