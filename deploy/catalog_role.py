"""The role and the database of the catalog, made as the administrator of their server."""

from dataclasses import dataclass

import psycopg
from psycopg import sql

CATALOG = "tenantry"


@dataclass(frozen=True)
class Administrator:
    """Who may make roles and databases, and where."""

    host: str
    port: int
    user: str
    password: str


async def make_catalog(administrator: Administrator, password: str) -> None:
    """Create the role and the database of the catalog if they are missing; set the password.

    The password is hashed here, so that the server never sees it.

    Raises:
        psycopg.Error: the server does not answer, or refuses.
    """
    async with await psycopg.AsyncConnection.connect(
        host=administrator.host,
        port=administrator.port,
        user=administrator.user,
        password=administrator.password,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        verifier = connection.pgconn.encrypt_password(
            password.encode(), CATALOG.encode(), b"scram-sha-256"
        ).decode()
        role = sql.Identifier(CATALOG)
        if not await _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s"):
            await connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        await connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, verifier))
        if not await _exists(connection, "SELECT FROM pg_database WHERE datname = %s"):
            await connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        await connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))


async def _exists(connection: psycopg.AsyncConnection[tuple[object, ...]], query: str) -> bool:
    cursor = await connection.execute(query.encode(), [CATALOG])
    return await cursor.fetchone() is not None
