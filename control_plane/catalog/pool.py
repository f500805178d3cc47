"""Connections to the catalog: one small asyncpg pool per process, JSON as Python values."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

import asyncpg
import msgspec

from control_plane.catalog.primary import Primary
from control_plane.config import Settings
from control_plane.domain.errors import (
    CatalogNotAccepted,
    CatalogUnavailable,
    Conflict,
    TenantryError,
)

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Record = asyncpg.Record
    Connection = asyncpg.Connection[Record] | PoolConnectionProxy[Record]
    Pool = asyncpg.Pool[Record]
else:
    Record = asyncpg.Record
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

_CONNECT_TIMEOUT_SECONDS = 5.0
_COMMAND_TIMEOUT_SECONDS = 30.0
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


@contextmanager
def translated() -> Iterator[None]:
    """Turn driver errors into ours.

    Raises:
        CatalogUnavailable: the catalog does not answer; nothing was decided.
        Conflict: a constraint of the catalog refused; ``facts["constraint"]`` names it.
    """
    try:
        yield
    except TenantryError:
        raise
    except _AWAY as error:
        raise CatalogUnavailable("the catalog does not answer; try again shortly") from error
    except _REFUSED as error:
        raise CatalogUnavailable(f"the catalog refuses this process: {error}") from error
    except asyncpg.IntegrityConstraintViolationError as error:
        constraint = error.constraint_name or "unknown"
        raise Conflict(f"the catalog refused ({constraint})", constraint=constraint) from error


class Catalog:
    """The catalog database as one process sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._primary = Primary(settings.catalog_dsn)
        self._pool: Pool | None = None
        self._dedicated: WeakSet[asyncpg.Connection[Record]] = WeakSet()

    async def open(self, *, max_size: int = 8) -> None:
        """Make the pool.

        Raises:
            CatalogUnavailable: the catalog does not answer.
        """
        with translated():
            self._pool = await asyncpg.create_pool(
                self._settings.catalog_dsn,
                connect=self._primary.connect,
                password=self._password(),
                min_size=0,
                max_size=max_size,
                timeout=_CONNECT_TIMEOUT_SECONDS,
                command_timeout=_COMMAND_TIMEOUT_SECONDS,
                init=prepare_connection,
                reset=_nothing_to_reset,
            )

    async def forget_idle(self) -> None:
        """Use none of the present connections again: the next ones are new."""
        if self._pool is not None:
            await self._pool.expire_connections()

    async def _leave(self) -> None:
        """Leave a primary that was replaced while it lives: the next connections look anew."""
        if self._primary.is_one_of_several:
            await self.forget_idle()
            for connection in self._dedicated:
                connection.terminate()

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection in autocommit mode."""
        with translated():
            async with self._opened().acquire(timeout=_CONNECT_TIMEOUT_SECONDS) as connection:
                try:
                    yield connection
                except CatalogNotAccepted:
                    await self._leave()
                    raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A pooled connection inside one transaction."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A pooled connection inside one read-only transaction that sees a single instant."""
        async with (
            self.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def dedicated(self) -> "asyncpg.Connection[Record]":
        """A connection of its own, for LISTEN; the caller closes it."""
        with translated():
            connection = await self._primary.connect(
                self._settings.catalog_dsn,
                password=self._password(),
                timeout=_CONNECT_TIMEOUT_SECONDS,
                command_timeout=_COMMAND_TIMEOUT_SECONDS,
            )
            await prepare_connection(connection)
            self._dedicated.add(connection)
            return connection

    def _opened(self) -> Pool:
        if self._pool is None:
            raise CatalogUnavailable("the catalog pool is not open")
        return self._pool

    def _password(self) -> str | None:
        secret = self._settings.catalog_password
        return secret.reveal() if secret else None


async def _nothing_to_reset(_: Connection) -> None:
    """Spare a round trip per use: catalog code leaves no session state behind it.

    Transactions end with their context, advisory locks are those of transactions, and LISTEN is
    for ``dedicated`` connections only.
    """


async def prepare_connection(connection: Connection) -> None:
    """Teach a connection to carry ``jsonb`` as Python values."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
        format="text",
    )
