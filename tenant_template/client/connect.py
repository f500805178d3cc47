"""Engines and sessions of one tenant: the right database, the right driver settings, its keys."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Dialect, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from tenant_template.client.acting import TENANT, acting_as
from tenant_template.client.control_plane import ControlPlane, CurrentDsn, Dsn, Pool
from tenant_template.client.encrypted import VAULT, TenantSession
from tenant_template.client.errors import TenantMismatch
from tenant_template.client.vault import Vault

Driver = Literal["asyncpg", "psycopg"]
Options = Mapping[str, Any]

# A connection lives this long, and a DSN is believed this long: together well below the hour
# that a rotation leaves to the old login by default.
MAX_AGE_SECONDS = 900.0
_IDENTITY = "SELECT tenant_id FROM cp_meta.identity"
# An idle connection to the session endpoint keeps one of the tenant's few there for itself.
_SESSION_POOL: Options = {"pool_size": 2, "max_overflow": 0}
_SILENT: Options = {
    "asyncpg": {
        # An unnamed statement is parsed and run in one message, so that no pooler can come
        # between, and none is left behind on a server connection as a uniquely named one is.
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    },
    "psycopg": {"prepare_threshold": None},
}
# What Postgres (28P01, 28000) and PgBouncer (08P01) say to a login that has ended.
_REFUSED_STATES = ("28P01", "28000", "08P01")
_REFUSED_WORDS = ("authentication failed", "no such user", "is not permitted to log in")


@dataclass(frozen=True)
class Tenancy:
    """One tenant for an application of coroutines."""

    tenant_id: UUID
    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]

    @asynccontextmanager
    async def acting_as(
        self, user_id: str, request_id: UUID | None = None, *, read_only: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """A new session in one transaction with this acting user; committed at the end."""
        async with (
            self.sessions.begin() as session,
            acting_as(session, user_id, request_id, read_only=read_only),
        ):
            yield session

    async def close(self) -> None:
        await self.engine.dispose()


@dataclass(frozen=True)
class SyncTenancy:
    """One tenant for an application of threads."""

    tenant_id: UUID
    engine: Engine
    sessions: sessionmaker[TenantSession]

    @contextmanager
    def acting_as(
        self, user_id: str, request_id: UUID | None = None, *, read_only: bool = False
    ) -> Iterator[Session]:
        """A new session in one transaction with this acting user; committed at the end."""
        with (
            self.sessions.begin() as session,
            acting_as(session, user_id, request_id, read_only=read_only),
        ):
            yield session

    def close(self) -> None:
        self.engine.dispose()


class _Known(NamedTuple):
    """What the control plane told about the tenant."""

    vault: Vault
    current: CurrentDsn


async def connect(
    control_plane: ControlPlane,
    *,
    driver: Driver = "asyncpg",
    pool: Pool = "transaction",
    max_age_seconds: float = MAX_AGE_SECONDS,
    engine_options: Options | None = None,
) -> Tenancy:
    """A tenant's async engine and sessions. ``engine_options`` go to ``create_async_engine``.

    Raises:
        ControlPlaneRefused, ControlPlaneUnavailable: see there.
    """
    known = await asyncio.to_thread(_ask, control_plane, pool, max_age_seconds)
    options = _engine_options(pool, max_age_seconds, engine_options)
    engine = create_async_engine(f"postgresql+{driver}://", **options)
    _connect_by(engine.sync_engine, known, lambda ask: await_only(asyncio.to_thread(ask)))
    sessions = async_sessionmaker(
        engine,
        sync_session_class=TenantSession,
        info={VAULT: known.vault},
        expire_on_commit=False,
    )
    return Tenancy(known.vault.tenant_id, engine, sessions)


def connect_sync(
    control_plane: ControlPlane,
    *,
    pool: Pool = "transaction",
    max_age_seconds: float = MAX_AGE_SECONDS,
    engine_options: Options | None = None,
) -> SyncTenancy:
    """The same with psycopg, without coroutines. ``engine_options`` go to ``create_engine``.

    Raises:
        ControlPlaneRefused, ControlPlaneUnavailable: see there.
    """
    known = _ask(control_plane, pool, max_age_seconds)
    options = _engine_options(pool, max_age_seconds, engine_options)
    engine = create_engine("postgresql+psycopg://", **options)
    _connect_by(engine, known, lambda ask: ask())
    sessions = sessionmaker(
        engine, class_=TenantSession, info={VAULT: known.vault}, expire_on_commit=False
    )
    return SyncTenancy(known.vault.tenant_id, engine, sessions)


def _ask(control_plane: ControlPlane, pool: Pool, max_age_seconds: float) -> _Known:
    vault = control_plane.vault()
    return _Known(vault, CurrentDsn(lambda: control_plane.dsn(pool), max_age_seconds))


def _engine_options(pool: Pool, max_age_seconds: float, given: Options | None) -> dict[str, Any]:
    """``hide_parameters``: no value of a row in errors or logs."""
    ours = {"hide_parameters": True, "pool_pre_ping": True, "pool_recycle": max_age_seconds}
    return {**ours, **(_SESSION_POOL if pool == "session" else {}), **(given or {})}


def _connect_by(engine: Engine, known: _Known, wait: Callable[[Callable[[], Dsn]], Dsn]) -> None:
    """Have the engine take DSN and settings anew for each connection, and check where it leads.

    ``wait`` runs a call that blocks, in the way the engine can bear.
    """
    vault, current = known

    @event.listens_for(engine, "do_connect")
    def do_connect(
        dialect: Dialect,
        entry: ConnectionPoolEntry,
        arguments: list[Any],
        parameters: dict[str, Any],
    ) -> DBAPIConnection:
        def connected(dsn: Dsn) -> DBAPIConnection:
            settings = parameters | _parameters(dialect, dsn)
            return dialect.connect(*arguments, **settings)

        dsn = current.fresh or wait(current.renewed)
        try:
            connection = connected(dsn)
        except dialect.loaded_dbapi.Error as error:
            if not _is_refusal(error):
                raise
            fresh = wait(lambda: current.after_refusal(dsn))
            if fresh.url == dsn.url:
                raise
            connection = connected(fresh)
        _check_identity(connection, vault.tenant_id)
        entry.info[TENANT] = vault.tenant_id
        return connection


def _parameters(dialect: Dialect, dsn: Dsn) -> dict[str, Any]:
    _, parameters = dialect.create_connect_args(
        dsn.url.set(drivername=f"postgresql+{dialect.driver}")
    )
    driver = "asyncpg" if dialect.driver == "asyncpg" else "psycopg"
    return {**parameters, **(_SILENT[driver] if driver in dsn.hints else {})}


def _is_refusal(error: Exception) -> bool:
    """Whether the login was refused; psycopg has no SQLSTATE for what happens before one is in."""
    state = getattr(error, "sqlstate", None)
    return state in _REFUSED_STATES or any(words in str(error) for words in _REFUSED_WORDS)


def _check_identity(connection: DBAPIConnection, tenant_id: UUID) -> None:
    """Close what leads to another tenant's database.

    Raises:
        TenantMismatch: it does.
    """
    try:
        cursor = connection.cursor()
        cursor.execute(_IDENTITY)
        (found,) = cursor.fetchone() or (None,)
        cursor.close()
        connection.rollback()
    except BaseException:
        connection.close()
        raise
    if found != tenant_id:
        connection.close()
        raise TenantMismatch(f"this database belongs to {found or 'no tenant'}, not to {tenant_id}")
