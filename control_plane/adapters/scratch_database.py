"""The database a backup is loaded into, and the login that loads it; both made anew each time.

Everything in a backup is a tenant's, so a login without any special right loads it (S-08, S-09).
What only an administrator can make is made while the database is still empty.
"""

from uuid import UUID

from control_plane.adapters import scram
from control_plane.adapters.admin_sessions import terminate_logins
from control_plane.adapters.postgres_server import Connection, require_server, translated
from control_plane.adapters.sql_text import fill, load
from control_plane.adapters.tenant_database import drop_tenant_database
from control_plane.config import Secret
from control_plane.domain import names
from control_plane.domain.backups import Manifest

# A password of 256 random bits that lives for one load; see migrator_lease.
_ITERATIONS = 8

_OPEN_DATABASE = """
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {name} TO {loader};
ALTER DATABASE {name} ALLOW_CONNECTIONS true;
"""
_LET_IN = "ALTER ROLE {loader} LOGIN PASSWORD {verifier};"
_SHUT_OUT = """
DO $body$ BEGIN
    IF to_regrole('{loader}') IS NOT NULL THEN
        ALTER ROLE {loader} NOLOGIN PASSWORD NULL;
    END IF;
END $body$;
"""
# What the loader made and did not hand over becomes the owner's, where comparisons will find it.
_DISOWN = """
DO $body$ BEGIN
    IF to_regrole('{loader}') IS NOT NULL THEN
        REASSIGN OWNED BY {loader} TO {owner};
        DROP OWNED BY {loader};
    END IF;
END $body$;
"""
_DROP = "DROP ROLE IF EXISTS {loader};"


def loader_name(scratch_id: UUID) -> str:
    """The login that loads the scratch database with this id."""
    return loader_of(names.database_name(scratch_id))


def loader_of(database: str) -> str:
    """The login that loads the scratch database of this name."""
    return f"{database}_load"


async def create_scratch(
    admin: Connection,
    name: str,
    manifest: Manifest,
    roles: names.RoleSet,
    loader: str,
    system_identifier: int,
) -> None:
    """An empty database that only ``loader`` may enter; one that was there is thrown away.

    ``admin`` is in another database. The roles exist; the loader may become their owner and
    auditor, and cannot log in before ``open_loader``.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        SchemaMismatch: a template database has this name.
        ObjectInUse: something keeps a session, slot or transaction of the old one.
        DiskFull: the server has no room for it.
    """
    await drop_tenant_database(admin, name, system_identifier)
    locale = manifest.locale
    with translated():
        statement = await admin.fetchval(
            load("create_scratch"),
            name,
            names.DATABASE_OWNER,
            locale.encoding,
            locale.collate,
            locale.ctype,
            locale.provider,
            locale.icu_locale,
        )
        await admin.execute(
            fill(load("ensure_loader"), loader=loader, owner=roles.owner, auditor=roles.auditor)
        )
        await admin.execute(str(statement))
        await admin.execute(fill(_OPEN_DATABASE, name=name, loader=loader))


async def open_loader(admin: Connection, loader: str) -> Secret:
    """Let the loader in; its password until ``close_loader``."""
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    with translated():
        await admin.execute(fill(_LET_IN, loader=loader, verifier=verifier))
    return password


async def close_loader(admin: Connection, loader: str) -> None:
    """Keep the loader out and end its sessions.

    Raises:
        ObjectInUse: a session of it does not end.
    """
    with translated():
        await admin.execute(fill(_SHUT_OUT, loader=loader))
    await terminate_logins(admin, [loader])


async def dismiss_loader(inside: Connection, loader: str, roles: names.RoleSet) -> None:
    """Drop the loader of a database that is loaded; ``inside`` is an administrator in it.

    What it still owned becomes the owner's.

    Raises:
        ObjectInUse: a session of it does not end.
    """
    await close_loader(inside, loader)
    with translated():
        await inside.execute(fill(_DISOWN + _DROP, loader=loader, owner=roles.owner))


async def drop_scratch(admin: Connection, name: str, loader: str, system_identifier: int) -> bool:
    """Drop a scratch database and its loader, finished or not; whether there was a database.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        SchemaMismatch: a template database has this name.
        ObjectInUse: see ``drop_tenant_database``.
    """
    await require_server(admin, system_identifier)
    await close_loader(admin, loader)
    dropped = await drop_tenant_database(admin, name, system_identifier)
    with translated():
        await admin.execute(fill(_DROP, loader=loader))
    return dropped
