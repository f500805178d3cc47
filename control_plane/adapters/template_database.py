"""The closed database that tenants of one template version are cloned from."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import msgspec
import psycopg
from alembic import command
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from control_plane.adapters.alembic_environment import (
    PLACEHOLDER_ROLES,
    Environment,
    line_of_revisions,
    open_environment,
)
from control_plane.adapters.postgres_server import (
    Connection,
    ServerAddress,
    connect,
    require_server,
    translate,
    translated,
)
from control_plane.adapters.schema_fingerprint import (
    TEMPLATE_ROLES,
    SchemaReading,
    read_definition,
)
from control_plane.adapters.schema_mark import read_mark
from control_plane.adapters.sql_text import fill, load
from control_plane.adapters.template_files import Template, content_fingerprint
from control_plane.adapters.tenant_audit import begin_era
from control_plane.adapters.tenant_database import drop_database
from control_plane.adapters.tenant_migration import read_revision
from control_plane.adapters.tenant_roles import bootstrap_server
from control_plane.domain import names
from control_plane.domain.errors import ObjectInUse, SchemaMismatch

_CONNECT_TIMEOUT_SECONDS = 5
_DRIVER = "postgresql+psycopg"

_STRAYS = """
SELECT datname, datconnlimit <> -2 AS valid FROM pg_database
 WHERE datname ~ '^tpl_[0-9a-f]{16}$' AND datname <> ALL ($1::text[]) ORDER BY datname
"""
_NO_TEMPLATE = "ALTER DATABASE {name} IS_TEMPLATE false"
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
# A plain environment says nothing about roles: the app may work with everything its owner makes,
# the reader may look at it. Adoption carries all of it over to the tenant's roles.
_PLAIN_PRIVILEGES = """
GRANT USAGE ON SCHEMA public TO {app}, {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SCHEMAS TO {app}, {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SEQUENCES TO {app};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT EXECUTE ON FUNCTIONS TO {app};
"""
_GUARD_VERSION_TABLE = """
REVOKE ALL ON public.alembic_version FROM {app}, {reader};
"""
# As the clinic's env.py has them; a plain env.py has none.
_PLAIN_SESSION = {
    "role": names.TEMPLATE_OWNER,
    "search_path": "public",
    "lock_timeout": "5s",
    "statement_timeout": "10min",
    "idle_in_transaction_session_timeout": "1min",
}
# One statement is the marker: a database that has both was finished.
_CLOSE_TEMPLATE = """
REVOKE CREATE ON DATABASE {name} FROM {template_owner};
ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false;
"""


class BuiltSchema(msgspec.Struct, frozen=True):
    """What a database of this template looks like at ``revision``."""

    revision: str
    reading: SchemaReading
    mark: str


Record = Callable[[Sequence[BuiltSchema]], Awaitable[None]]


async def build_template(
    address: ServerAddress,
    name: str,
    template: Template,
    system_identifier: int,
    record: Record,
) -> bool:
    """The closed template database ``name`` from the revisions of ``template``.

    Whether it was built just now. ``record`` is awaited with the schema at every revision, oldest
    first, before the template is closed: one that is closed was recorded. One that was left
    half-built is dropped and built again; two workers that come at once build one.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        ObjectInUse: another worker has been building it for more than 10 seconds, or the files
            of the template are no longer those of ``template``.
        SchemaMismatch: the code of the template fails; the message names the file.
        TenantryError: a revision fails on the server; the message names the revision.
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
        await _build(connection, address, name, template, record)
    finally:
        connection.terminate()
    return True


async def drop_strays(
    address: ServerAddress, known: Collection[str], system_identifier: int
) -> int:
    """Drop template databases that nobody knows: left half-built, of files that changed since.

    Call it while no template is being built there. How many there were.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
    """
    connection = await connect(address, application_name="cp:strays")
    try:
        await require_server(connection, system_identifier)
        with translated():
            rows = await connection.fetch(_STRAYS, list(known))
        for row in rows:
            if row["valid"]:
                with translated():
                    await connection.execute(fill(_NO_TEMPLATE, name=row["datname"]))
            await drop_database(connection, row["datname"], valid=row["valid"])
    finally:
        connection.terminate()
    return len(rows)


@contextmanager
def psycopg_connection(
    address: ServerAddress, database: str, application_name: str
) -> Iterator[psycopg.Connection[Any]]:
    """A synchronous connection, for Alembic; closed at the end of the block."""
    with (
        libpq_arguments(address, application_name) as arguments,
        psycopg.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password.reveal(),
            dbname=database,
            **arguments,  # type: ignore[arg-type]  # libpq takes every one of them as text
        ) as connection,
    ):
        yield connection


@contextmanager
def plain_environment(
    environment: Environment, address: ServerAddress, database: str, session: dict[str, str]
) -> Iterator[None]:
    """Point a plain environment at ``database``, as the role and settings of ``session``.

    The password is in the open ``Config`` and nowhere else, and leaves it with the block.
    """
    options = " ".join(f"-c {key}={value}" for key, value in session.items())
    with libpq_arguments(address, f"cp:alembic:{database}", options) as arguments:
        url = URL.create(
            _DRIVER,
            username=address.user,
            password=address.password.reveal(),
            host=address.host,
            port=address.port,
            database=database,
            query={key: value for key, value in arguments.items() if value},
        ).render_as_string(hide_password=False)
        environment.config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        try:
            yield
        finally:
            environment.config.remove_main_option("sqlalchemy.url")


async def _build(
    connection: Connection, address: ServerAddress, name: str, template: Template, record: Record
) -> None:
    values = {"name": name, "template_owner": names.TEMPLATE_OWNER}
    _require_unchanged(template)
    # A server enrolled by an older version lacks the placeholders that came later.
    await bootstrap_server(connection)
    with translated():
        await connection.execute(fill(_CREATE_TEMPLATE, name=name, owner=names.DATABASE_OWNER))
        await connection.execute(fill(_OPEN_TEMPLATE, **values))
    inside = await connect(address, name, application_name=f"cp:build:{name}")
    try:
        with translated():
            await inside.execute(fill(_GIVE_PUBLIC_SCHEMA, **values))
            built = await _apply_revisions(inside, address, name, template)
            await inside.execute(_metadata_script())
            await begin_era(inside, names.TEMPLATE_AUDITOR)
            # Clones start frozen and with statistics.
            await inside.execute("VACUUM (FREEZE, ANALYZE)")
            # Waits for the backend to end: a clone fails while anyone is in the template.
            await inside.close()
    finally:
        inside.terminate()
    _require_unchanged(template)
    await record(built)
    with translated():
        await connection.execute(fill(_CLOSE_TEMPLATE, **values))


async def _apply_revisions(
    inside: Connection, address: ServerAddress, name: str, template: Template
) -> list[BuiltSchema]:
    revisions, role_aware = await asyncio.to_thread(_line, template.directory)
    roles = {role: PLACEHOLDER_ROLES[role] for role in ("app", "reader")}
    if not role_aware:
        await inside.execute(fill(_PLAIN_PRIVILEGES, owner=names.TEMPLATE_OWNER, **roles))
    built: list[BuiltSchema] = []
    for revision in revisions:
        await asyncio.to_thread(_upgrade, address, name, template, revision)
        if (found := await read_revision(inside)) != revision:
            raise SchemaMismatch(
                f"template {template.name}: env.py ran, and the new database is at "
                f"{found or 'no revision'}, not at {revision}; env.py must connect to "
                "sqlalchemy.url of its configuration and commit"
            )
        if not role_aware:
            await inside.execute(fill(_GUARD_VERSION_TABLE, **roles))
        reading = await read_definition(inside, TEMPLATE_ROLES)
        built.append(BuiltSchema(revision, reading, await read_mark(inside)))
    return built


def _line(directory: Path) -> tuple[list[str], bool]:
    with open_environment(directory) as environment:
        line = line_of_revisions(environment)
        return [script.revision for script in line], environment.role_aware


def _upgrade(address: ServerAddress, database: str, template: Template, revision: str) -> None:
    with open_environment(template.directory) as environment:
        environment.config.attributes["roles"] = dict(PLACEHOLDER_ROLES)
        run = _upgrade_aware if environment.role_aware else _upgrade_plain
        try:
            run(environment, address, database, revision)
        except (psycopg.Error, DBAPIError) as error:
            known = translate(error)
            message = f"revision {revision} of template {template.name}: {known.message}"
            raise type(known)(message, **known.facts) from error


def _upgrade_aware(
    environment: Environment, address: ServerAddress, database: str, revision: str
) -> None:
    with psycopg_connection(address, database, f"cp:alembic:{database}") as driver:
        engine = create_engine(f"{_DRIVER}://", creator=lambda: driver, poolclass=NullPool)
        with engine.connect() as connection:
            environment.config.attributes["connection"] = connection
            command.upgrade(environment.config, revision)


def _upgrade_plain(
    environment: Environment, address: ServerAddress, database: str, revision: str
) -> None:
    with plain_environment(environment, address, database, _PLAIN_SESSION):
        command.upgrade(environment.config, revision)


def _require_unchanged(template: Template) -> None:
    if content_fingerprint(template.directory, template.name) != template.fingerprint:
        raise ObjectInUse(
            f"the files of template {template.name} changed while it was about to be built; "
            "it is tried again with those that are there then"
        )


def _metadata_script() -> str:
    return fill(
        load("template_metadata"),
        database_owner=names.DATABASE_OWNER,
        template_owner=names.TEMPLATE_OWNER,
        template_app=names.TEMPLATE_APP,
        template_reader=names.TEMPLATE_READER,
    )


@contextmanager
def libpq_arguments(
    address: ServerAddress, application_name: str, options: str = ""
) -> Iterator[dict[str, str]]:
    """What libpq is told beside place and login; an empty text overrides the environment."""
    with _authorities(address) as sslrootcert:
        yield {
            "hostaddr": address.hostaddr or "",
            "sslmode": address.tls,
            "sslrootcert": sslrootcert,
            "require_auth": "scram-sha-256",
            "channel_binding": "disable" if address.tls == "disable" else "require",
            "connect_timeout": str(_CONNECT_TIMEOUT_SECONDS),
            "application_name": application_name,
            "options": options,
        }


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
