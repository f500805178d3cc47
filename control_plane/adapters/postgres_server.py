"""A tenant server as its administrator sees it: its address, connections, and its errors."""

import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import msgspec
import psycopg
from sqlalchemy.exc import DBAPIError

from control_plane.adapters.scram_only import check_authenticated, scram_required
from control_plane.config import Secret
from control_plane.domain.errors import (
    DiskFull,
    Invalid,
    ObjectInUse,
    ServerRefused,
    ServerUnavailable,
    TenantMismatch,
    TenantryError,
    UnexpectedDatabaseError,
)

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

Tls = Literal["disable", "require", "verify-full"]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]{0,251}[A-Za-z0-9])?")
_HIGHEST_PORT = 65_535
_COMMAND_TIMEOUT_SECONDS = 90.0
# S-08: nothing a tenant created is ever found by an unqualified name.
# client_connection_check_interval ends the statement of a worker that was killed (Postgres 14+).
_SESSION_SETTINGS = {
    "search_path": "pg_catalog",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "1s",
    "jit": "off",
    # Literals in defaults and checks are told in one way, whatever a server is set to.
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
}


class ServerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and how to log in; ``hostaddr`` is dialled, ``host`` is verified.

    ``tls``: ``disable``; ``require`` encrypts, and checks the chain (not the name) if ``ca_pem``
    is given; ``verify-full`` checks chain and name against ``ca_pem`` or the system's authorities.

    Raises:
        Invalid: host, hostaddr or port is not a plain host name, address or port (S-28).
    """

    host: str
    port: int
    user: str
    password: Secret
    hostaddr: str | None = None
    tls: Tls = "verify-full"
    ca_pem: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("host", self.host), ("hostaddr", self.hostaddr or self.host)):
            if _HOST.fullmatch(value) is None:
                raise Invalid(f"{field} {value!r}: give one plain host name or address")
        if not 0 < self.port <= _HIGHEST_PORT:
            raise Invalid(f"port {self.port}: give a port from 1 to {_HIGHEST_PORT}")

    def for_login(self, user: str, password: Secret) -> "ServerAddress":
        """The same server, another login."""
        return msgspec.structs.replace(self, user=user, password=password)


async def connect(
    address: ServerAddress,
    database: str = "postgres",
    application_name: str = "cp:control-plane",
    timeout: float = 5.0,  # noqa: ASYNC109 - asyncpg bounds the whole attempt itself
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """A connection of ours, SCRAM-SHA-256 only; ``timeout`` in seconds.

    ``settings`` are those of the session, beside and over the usual ones.

    Raises:
        ServerUnavailable: nobody answers, or the server is starting or has no free slot.
        ServerRefused: wrong password, no such database, bad certificate, or unsafe authentication.
    """
    with translated(), scram_required():
        connection = await asyncpg.connect(
            host=address.hostaddr or address.host,
            port=address.port,
            user=address.user,
            password=address.password.reveal(),
            database=database,
            ssl=_tls_context(address),
            timeout=timeout,
            command_timeout=_COMMAND_TIMEOUT_SECONDS,
            server_settings={
                **_SESSION_SETTINGS,
                **(settings or {}),
                "application_name": application_name,
            },
        )
    check_authenticated(connection)
    with translated():
        _keep_alive(connection)
    return connection


async def require_server(connection: Connection, system_identifier: int) -> None:
    """Make sure this is the server that is meant, before anything is destroyed on it (S-10).

    Raises:
        TenantMismatch: another cluster answers at this address; nothing was changed.
    """
    with translated():
        found = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    if found != system_identifier:
        raise TenantMismatch(
            f"expected the server with system identifier {system_identifier}, found {found}; "
            "check which server answers at this host and port"
        )


def _keep_alive(connection: Connection) -> None:
    """A server that vanishes is noticed in about a minute, however long a statement may run."""
    transport = getattr(connection, "_transport", None)
    if transport is None:
        raise UnexpectedDatabaseError(
            "the driver hides its socket; pin asyncpg to a tested version"
        )
    # uvloop shows the number of its socket and nothing else.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class _NamedContext(ssl.SSLContext):
    """Verifies the certificate against ``verified_name`` although an address was dialled."""

    verified_name: str | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401 - as the base
        if self.verified_name is not None:
            kwargs["server_hostname"] = self.verified_name
        return super().wrap_bio(*args, **kwargs)


def _tls_context(address: ServerAddress) -> ssl.SSLContext | Literal[False]:
    if address.tls == "disable":
        return False
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verified_name = address.host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.ca_pem is not None:
        context.load_verify_locations(cadata=address.ca_pem)
    elif address.tls == "verify-full":
        context.load_default_certs()
    if address.tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED if address.ca_pem else ssl.CERT_NONE
    return context


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the drivers raise into our errors; a ``TenantryError`` passes unchanged."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translate(error) from error
    except (asyncpg.InternalClientError, psycopg.Error, DBAPIError) as error:
        raise translate(error) from error


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: dict[str, type[TenantryError]] = {
    "53100": DiskFull,
    "55006": ObjectInUse,
    "55P03": ObjectInUse,
    "40001": ObjectInUse,
    "40P01": ObjectInUse,
    "2BP01": ObjectInUse,
    "57014": ServerUnavailable,  # our own statement_timeout
    "53200": ServerUnavailable,
    "53300": ServerUnavailable,
    "42501": ServerRefused,
    "3D000": ServerRefused,
}
_BY_CLASS: dict[str, type[TenantryError]] = {
    "08": ServerUnavailable,
    "57": ServerUnavailable,  # shutting down, starting up, crashed, database dropped
    "28": ServerRefused,
}


def translate(error: BaseException) -> TenantryError:
    """Our error for one of asyncpg, psycopg, SQLAlchemy or the operating system.

    The message carries the server's primary message and SQLSTATE; never its DETAIL, the
    statement or its values.
    """
    if isinstance(error, TenantryError):
        return error
    if isinstance(error, DBAPIError) and error.orig is not None:
        return translate(error.orig)
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str) and isinstance(error, (asyncpg.PostgresError, psycopg.Error)):
        return _from_state(state, _primary_message(error))
    return _without_state(error)


def _from_state(state: str, message: str) -> TenantryError:
    kind = _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
    if kind is None and state == "XX000" and message.startswith("tuple concurrently"):
        kind = ObjectInUse
    return (kind or UnexpectedDatabaseError)(f"the server answered {state}: {message}", state=state)


def _without_state(error: BaseException) -> TenantryError:
    if isinstance(error, ssl.SSLError):
        return ServerRefused(f"TLS with the server failed: {error.reason or error}")
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ConnectionError) and "rejected SSL" in text:
        return ServerRefused("the server has no TLS; switch ssl on, or enrol it with tls=disable")
    if isinstance(error, TimeoutError):
        return ServerUnavailable("the server did not answer in time")
    if isinstance(error, (OSError, psycopg.OperationalError)) or "clos" in text:
        return ServerUnavailable(f"the server does not answer: {text}")
    return UnexpectedDatabaseError(f"the driver reported {type(error).__name__}: {text}")


def _primary_message(error: asyncpg.PostgresError | psycopg.Error) -> str:
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or type(error).__name__
    return str(error.args[0]) if error.args else type(error).__name__
