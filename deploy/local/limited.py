"""A tenant server's administrator that is no superuser, made by the statements Tenantry prints."""

from pathlib import Path

import psycopg
from psycopg import sql

from control_plane.adapters.administrator import administrator_script
from control_plane.domain.administrators import LEAST_MAJOR
from deploy.catalog_role import Administrator
from deploy.local.files import secret_once
from deploy.local.postgres import PostgresServer, administrator

LIMITED = "tenantry_limited"


def is_enough(server: PostgresServer) -> bool:
    """Whether a server of this version can do without a superuser."""
    return server.binaries.major >= LEAST_MAJOR


def limited_password_file(server: PostgresServer) -> Path:
    return server.layout.secret(f"{server.name}.limited.password")


async def limited_administrator(server: PostgresServer) -> Administrator:
    """The login, made or brought to what it should be; the server runs."""
    owner = administrator(server)
    password = secret_once(limited_password_file(server))
    async with await psycopg.AsyncConnection.connect(
        host=owner.host,
        port=owner.port,
        user=owner.user,
        password=owner.password,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        await connection.execute(administrator_script(LIMITED).encode())
        verifier = connection.pgconn.encrypt_password(
            password.encode(), LIMITED.encode(), b"scram-sha-256"
        ).decode()
        known = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(LIMITED), verifier)
        await connection.execute(known)
    return Administrator(owner.host, owner.port, LIMITED, password)
