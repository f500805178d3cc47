"""The catalog as a server that Postgres' own programs work on: its address, by its DSN."""

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import msgspec
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from control_plane.adapters.postgres_server import Connection, ServerAddress, Tls, connect
from control_plane.config import Secret
from control_plane.domain.errors import CatalogUnavailable, Invalid, TenantryError

SESSION_NAME = "cp:catalog"
_PORT = "5432"
# What a DSN that does not say it means: encrypted where the server can.
_TLS: dict[str, tuple[Tls, ...]] = {
    "disable": ("disable",),
    "require": ("require",),
    "verify-ca": ("verify-full",),
    "verify-full": ("verify-full",),
}
_EITHER: tuple[Tls, ...] = ("require", "disable")


class CatalogServer(msgspec.Struct, frozen=True):
    """The server of the catalog that takes writes, and its database there."""

    address: ServerAddress
    database: str
    version_num: int


async def find_catalog(dsn: str, password: Secret | None) -> CatalogServer:
    """The primary among the servers that a DSN names: of several, that of the highest timeline.

    Raises:
        Invalid: the DSN names no host, user or database.
        CatalogUnavailable: none of them answers, or all are standbys; the message has the reasons.
    """
    reasons: list[str] = []
    found: list[tuple[str, CatalogServer]] = []
    for address, database in _candidates(dsn, password):
        try:
            connection = await connect(address, database, SESSION_NAME)
        except TenantryError as error:
            reasons.append(f"{address.host}:{address.port}: {error.message}")
            continue
        try:
            timeline, version = await _look(connection)
        finally:
            connection.terminate()
        if timeline is None:
            reasons.append(f"{address.host}:{address.port} is a standby")
        else:
            found.append((timeline, CatalogServer(address, database, version)))
    if not found:
        raise CatalogUnavailable(f"no server of the catalog takes writes: {'; '.join(reasons)}")
    return max(found, key=itemgetter(0))[1]


async def _look(connection: Connection) -> tuple[str | None, int]:
    """The timeline of a server that takes writes, in hexadecimal digits, and its version."""
    row = await connection.fetchrow(
        """SELECT CASE WHEN NOT pg_is_in_recovery() THEN
                      left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
                  current_setting('server_version_num')::integer AS version_num"""
    )
    if row is None:
        raise TypeError("a SELECT without FROM has a row")
    return row["timeline"], row["version_num"]


def _candidates(dsn: str, password: Secret | None) -> Iterator[tuple[ServerAddress, str]]:
    try:
        told = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except ProgrammingError as error:
        raise Invalid("TENANTRY_CATALOG_DSN cannot be read as a DSN") from error
    for name in ("host", "user", "dbname"):
        if not told.get(name):
            raise Invalid(f"TENANTRY_CATALOG_DSN names no {name}")
    hosts = told["host"].split(",")
    ports = told.get("port", _PORT).split(",")
    root = told.get("sslrootcert")
    for place, host in enumerate(hosts):
        # One of the two is refused where a DSN leaves it open whether to encrypt.
        for tls in _TLS.get(told.get("sslmode", ""), _EITHER):
            address = ServerAddress(
                host=host,
                port=int(ports[place if len(ports) > 1 else 0] or _PORT),
                user=told["user"],
                password=password or Secret(told.get("password", "")),
                tls=tls,
                ca_pem=Path(root).read_text() if root and tls == "verify-full" else None,
            )
            yield address, told["dbname"]
