"""What is inside a tenant's database: the template it is cloned from, its owners, its proof."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from control_plane.adapters.postgres_server import (
    Connection,
    ServerAddress,
    connect,
    require_server,
    translated,
)
from control_plane.adapters.sql_text import fill, load
from control_plane.adapters.tenant_database import Identity, drop_database, read_identity
from control_plane.domain import names
from control_plane.domain.errors import SchemaMismatch, TenantMismatch

# Alembic keeps its context in module globals: one upgrade at a time in a process.
_alembic = threading.Lock()

_SOURCES = frozenset({".py", ".sql", ".ini", ".toml"})
_FINGERPRINT_CHARS = 16
_CONNECT_TIMEOUT_SECONDS = 5
_PLACEHOLDERS = (names.TEMPLATE_OWNER, names.TEMPLATE_APP, names.TEMPLATE_AUDITOR)

_TEMPLATE_STATE = """
SELECT datistemplate AND NOT datallowconn AS ready, datconnlimit <> -2 AS valid
  FROM pg_database WHERE datname = $1
"""
_CREATE_TEMPLATE = """
CREATE DATABASE {name} TEMPLATE template0 OWNER {owner} ALLOW_CONNECTIONS false
"""
_OPEN_TEMPLATE = """
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CREATE ON DATABASE {name} TO {template_owner};
ALTER DATABASE {name} ALLOW_CONNECTIONS true;
"""
_GIVE_PUBLIC_SCHEMA = """
ALTER SCHEMA public OWNER TO {template_owner};
REVOKE ALL ON SCHEMA public FROM PUBLIC;
"""
# One statement is the marker: a database that has both was finished.
_CLOSE_TEMPLATE = """
REVOKE CREATE ON DATABASE {name} FROM {template_owner};
ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false;
"""


def template_fingerprint(directory: Path) -> str:
    """16 hex digits that change when a file that shapes the schema changes (names and bytes)."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*"), key=lambda p: p.relative_to(directory).as_posix()):
        if path.suffix in _SOURCES and path.is_file():
            for part in (path.relative_to(directory).as_posix().encode(), path.read_bytes()):
                digest.update(len(part).to_bytes(8))
                digest.update(part)
    return digest.hexdigest()[:_FINGERPRINT_CHARS]


def head_revision(directory: Path) -> str:
    """The revision a fresh database of this template has.

    Raises:
        SchemaMismatch: there is no revision, or more than one head.
    """
    heads = ScriptDirectory.from_config(_config(directory)).get_heads()
    if len(heads) != 1:
        raise SchemaMismatch(f"{directory} has {len(heads)} head revisions; exactly one is wanted")
    return heads[0]


async def build_template(
    address: ServerAddress, name: str, directory: Path, system_identifier: int
) -> bool:
    """The closed template database ``name`` from the revisions in ``directory``.

    Whether it was built just now. One that was left half-built is dropped and built again; two
    workers that come at once build one.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        ObjectInUse: another worker has been building it for more than 10 seconds.
    """
    connection = await connect(address, application_name=f"cp:build:{name}")
    try:
        await require_server(connection, system_identifier)
        with translated():
            await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
            state = await connection.fetchrow(_TEMPLATE_STATE, name)
        if state is not None and state["ready"]:
            return False
        if state is not None:
            await drop_database(connection, name, valid=state["valid"])
        await _build(connection, address, name, directory)
    finally:
        connection.terminate()
    return True


async def adopt_template(connection: Connection, roles: names.RoleSet) -> None:
    """Hand the database ``connection`` is in from the template's placeholders to the tenant.

    Ownership, every privilege, default privilege and policy that names a placeholder is given to
    the tenant's role instead, and the backup role may read everything. One transaction; a second
    call changes nothing.
    """
    heirs = [roles.owner, roles.app, roles.auditor]
    owners = [roles.owner, roles.auditor]
    with translated():
        rows = await connection.fetch(
            load("adopt_template"), list(_PLACEHOLDERS), heirs, roles.backup, owners
        )
        # Several statements in one message are one transaction.
        await connection.execute(";\n".join(row["statement"] for row in rows))


async def verify_tenant_database(
    connection: Connection, roles: names.RoleSet, expected: Identity, revision: str
) -> None:
    """Compare the database ``connection`` is in with what the catalog says it must be.

    Raises:
        TenantMismatch: it is another tenant's, another generation, or on another server.
        SchemaMismatch: revision, owners, privileges, roles or indexes differ; the message lists
            every difference.
    """
    found = await read_identity(connection)
    with translated():
        differences = await _differences(connection, roles, revision)
        server = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    if found != expected or server != expected.system_identifier:
        differences.insert(0, f"expected {expected}, found {found} on server {server}")
        raise TenantMismatch("; ".join(differences))
    if differences:
        raise SchemaMismatch("; ".join(differences))


async def _differences(connection: Connection, roles: names.RoleSet, revision: str) -> list[str]:
    rows = await connection.fetch(
        load("tenant_differences"),
        roles.owner,
        roles.app,
        list(roles.logins),
        roles.migrator,
        roles.backup,
        roles.auditor,
        names.DATABASE_OWNER,
        list(_PLACEHOLDERS),
    )
    differences = [row["difference"] for row in rows]
    if (found := await _revision(connection)) != revision:
        differences.append(f"revision {found or 'none'}, not {revision}")
    return differences


async def _revision(connection: Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass('public.alembic_version') IS NULL"):
        return None
    found = await connection.fetchval(
        "SELECT string_agg(version_num, ',' ORDER BY version_num) FROM public.alembic_version"
    )
    return found if isinstance(found, str) else None


async def _build(
    connection: Connection, address: ServerAddress, name: str, directory: Path
) -> None:
    values = {"name": name, "template_owner": names.TEMPLATE_OWNER}
    with translated():
        await connection.execute(fill(_CREATE_TEMPLATE, name=name, owner=names.DATABASE_OWNER))
        await connection.execute(fill(_OPEN_TEMPLATE, **values))
    inside = await connect(address, name, application_name=f"cp:build:{name}")
    try:
        with translated():
            await inside.execute(fill(_GIVE_PUBLIC_SCHEMA, **values))
            await asyncio.to_thread(_upgrade, address, name, directory)
            await inside.execute(_metadata_script())
            # Clones start frozen and with statistics.
            await inside.execute("VACUUM (FREEZE, ANALYZE)")
            # Waits for the backend to end: a clone fails while anyone is in the template.
            await inside.close()
    finally:
        inside.terminate()
    with translated():
        await connection.execute(fill(_CLOSE_TEMPLATE, **values))


def _metadata_script() -> str:
    return fill(
        load("template_metadata"),
        database_owner=names.DATABASE_OWNER,
        template_owner=names.TEMPLATE_OWNER,
        template_app=names.TEMPLATE_APP,
    )


def _upgrade(address: ServerAddress, database: str, directory: Path) -> None:
    config = _config(directory)
    owner, app, auditor = _PLACEHOLDERS
    config.attributes["roles"] = {"owner": owner, "app": app, "auditor": auditor}
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: _psycopg(address, database), poolclass=NullPool
    )
    with _alembic, engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config(directory: Path) -> Config:
    return Config(str(directory / "alembic.ini"))


def _psycopg(address: ServerAddress, database: str) -> psycopg.Connection[Any]:
    encrypted = address.tls != "disable"
    with _authorities(address) as sslrootcert:
        return psycopg.connect(
            host=address.host,
            hostaddr=address.hostaddr or "",
            port=address.port,
            user=address.user,
            password=address.password.reveal(),
            dbname=database,
            sslmode=address.tls,
            sslrootcert=sslrootcert,
            require_auth="scram-sha-256",
            channel_binding="require" if encrypted else "disable",
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            application_name=f"cp:build:{database}",
            options="",
        )


@contextmanager
def _authorities(address: ServerAddress) -> Iterator[str]:
    """Libpq reads authorities from a file; ``system`` names those of the machine."""
    if address.ca_pem is None:
        yield "system" if address.tls == "verify-full" else ""
        return
    with NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as file:
        file.write(address.ca_pem)
        file.flush()
        yield file.name
