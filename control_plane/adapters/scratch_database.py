"""The database a backup is loaded into, and the login that loads it; both made anew each time.

Everything in a backup is a tenant's, so a login without any special right loads it (S-08, S-09).
What only an administrator can make is made while the database is still empty.
"""

from collections.abc import Sequence
from uuid import UUID

from control_plane.adapters import scram
from control_plane.adapters.admin_sessions import terminate_logins
from control_plane.adapters.administrator import (
    abilities,
    attributes,
    guarded_settings,
    reach,
)
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import fill, load
from control_plane.adapters.tenant_database import drop_tenant_database
from control_plane.config import Secret
from control_plane.domain import names
from control_plane.domain.backups import Manifest

# A password of 256 random bits that lives for one load; see migrator_lease.
_ITERATIONS = 8
_LOADS = "_load"
# The words by which a full disk is told from other errors.
LOADER_SETTINGS: dict[str, str | int] = {"lc_messages": "C"}

_OPEN_DATABASE = """
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CREATE ON DATABASE {name} TO {owner};
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
# What the owner of a database may set for everybody who enters it.
_FORGET_SETTINGS = "ALTER DATABASE {name} RESET ALL"
# Who becomes an owner must be able to create in the schema. It is taken back before the privileges
# of the archive are given: by the loader, or by what follows here.
_LEND = """
ALTER DEFAULT PRIVILEGES FOR ROLE {loader}
    GRANT CREATE ON SCHEMAS TO {owner}, {auditor}, {app}, {login_a}, {login_b}, {reader};
GRANT CREATE ON SCHEMA public TO {owner}, {auditor}, {app}, {login_a}, {login_b}, {reader};
"""
_HAND_OVER = """
ALTER DATABASE {name} OWNER TO {database_owner};
ALTER DATABASE {name} RESET ALL;
REASSIGN OWNED BY {loader} TO {owner};
DROP OWNED BY {loader};
"""
_LET_BACKUP_READ = """
GRANT USAGE ON SCHEMA cp_meta TO {backup};
GRANT SELECT ON ALL TABLES IN SCHEMA cp_meta TO {backup};
"""
_ADMIT = "GRANT CONNECT ON DATABASE {name} TO {backup}"
_REFUSE = "REVOKE CONNECT ON DATABASE {name} FROM {backup}"
_EXISTS = "SELECT to_regrole(quote_ident($1)) IS NOT NULL"
_DROP = "DROP ROLE IF EXISTS {loader};"


def loader_name(scratch_id: UUID) -> str:
    """The login that loads the scratch database with this id."""
    return loader_of(names.database_name(scratch_id))


def loader_of(database: str) -> str:
    """The login that loads the scratch database of this name."""
    return f"{database}{_LOADS}"


def _database_of(loader: str) -> str:
    return loader.removesuffix(_LOADS)


def heirs(roles: names.RoleSet) -> dict[str, str]:
    """Who may own something in a tenant's database; logins only large objects."""
    return {
        "owner": roles.owner,
        "auditor": roles.auditor,
        "app": roles.app,
        "login_a": roles.login_a,
        "login_b": roles.login_b,
        "reader": roles.reader,
    }


async def create_scratch(
    admin: Connection,
    name: str,
    manifest: Manifest,
    roles: names.RoleSet,
    loader: str,
    system_identifier: int,
) -> None:
    """An empty database of ``loader``, whom alone it lets in; one that was there is thrown away.

    ``admin`` is in another database. The roles exist; the loader may become those that can own
    something, and cannot log in before ``open_loader``.

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
            loader,
            locale.encoding,
            locale.collate,
            locale.ctype,
            locale.provider,
            locale.icu_locale,
        )
        await admin.execute(await _loader_script(admin, loader, roles))
        await admin.execute(str(statement))
        await admin.execute(fill(_OPEN_DATABASE, name=name, owner=roles.owner))


async def furnish_scratch(
    inside: Connection, manifest: Manifest, roles: names.RoleSet, loader: str
) -> None:
    """Make what only an administrator can: extensions, and what loading takes beside them.

    ``inside`` is an administrator in the database as ``create_scratch`` left it.
    """
    extensions = manifest.extensions
    lent_to = list(heirs(roles).values())
    with translated():
        async with inside.transaction():
            await inside.execute(fill(_LEND, loader=loader, **heirs(roles)))
            await execute_listed(
                inside,
                load("furnish_scratch"),
                loader,
                roles.owner,
                [extension.name for extension in extensions],
                [extension.version for extension in extensions],
                [extension.schema for extension in extensions],
            )
            await execute_listed(inside, load("lend_extensions"), loader, lent_to)


async def open_loader(admin: Connection, loader: str) -> Secret:
    """Let the loader in; its password until ``close_loader``."""
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    with translated():
        await admin.execute(fill(_LET_IN, loader=loader, verifier=verifier))
    return password


async def close_loader(admin: Connection, loader: str) -> None:
    """Keep the loader out and end its sessions; what it set for the database is forgotten.

    Raises:
        ObjectInUse: a session of it does not end.
    """
    with translated():
        await admin.execute(fill(_SHUT_OUT, loader=loader))
    await terminate_logins(admin, [loader])
    with translated():
        await admin.execute(fill(_FORGET_SETTINGS, name=_database_of(loader)))


async def dismiss_loader(
    inside: Connection, name: str, loader: str, roles: names.RoleSet, statements: Sequence[str]
) -> None:
    """Make the database that was loaded ours, and drop its loader.

    ``inside`` is an administrator in it. Nobody may connect to it any more; what the loader still
    owned becomes the owner's, where comparisons will find it; ``cp_meta`` is as in every tenant's
    database, without an identity. ``statements`` are those that ``load_archive`` returned.

    Raises:
        ObjectInUse: a session of the loader does not end.
    """
    with translated():
        if not await inside.fetchval(_EXISTS, loader):
            return
    await close_loader(inside, loader)
    with translated():
        async with inside.transaction():
            await inside.execute(
                fill(
                    _HAND_OVER,
                    name=name,
                    database_owner=names.DATABASE_OWNER,
                    loader=loader,
                    owner=roles.owner,
                )
            )
            await execute_listed(inside, load("loader_traces"))
            await execute_listed(inside, load("dismiss_loader"), list(heirs(roles).values()))
            await inside.execute(
                fill(
                    load("template_metadata"),
                    database_owner=names.DATABASE_OWNER,
                    template_owner=roles.owner,
                    template_app=roles.app,
                    template_reader=roles.reader,
                )
            )
            await inside.execute(fill(_LET_BACKUP_READ, backup=roles.backup))
            for statement in statements:
                await inside.execute(statement)
            await inside.execute(fill(_DROP, loader=loader))


async def admit_backup_login(admin: Connection, name: str, roles: names.RoleSet) -> None:
    """Let the backup role, and nobody else, connect to the database."""
    with translated():
        await admin.execute(fill(_ADMIT, name=name, backup=roles.backup))


async def refuse_backup_login(admin: Connection, name: str, roles: names.RoleSet) -> None:
    """Nobody may connect to the database any more."""
    with translated():
        await admin.execute(fill(_REFUSE, name=name, backup=roles.backup))


async def drop_scratch(admin: Connection, name: str, loader: str, system_identifier: int) -> bool:
    """Drop a scratch database and its loader, finished or not; whether there was a database.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        SchemaMismatch: a template database has this name.
        ObjectInUse: see ``drop_tenant_database``.
    """
    dropped = await drop_tenant_database(admin, name, system_identifier)
    with translated():
        await admin.execute(fill(_DROP, loader=loader))
    return dropped


async def _loader_script(admin: Connection, loader: str, roles: names.RoleSet) -> str:
    may = await abilities(admin)
    made = fill(
        load("make_loader"),
        loader=loader,
        reach=reach(may),
        past_policies=attributes(may, past_policies=True),
        **heirs(roles),
    )
    return made + guarded_settings(may, loader, LOADER_SETTINGS)


async def execute_listed(inside: Connection, query: str, *values: object) -> None:
    """Run each ``statement`` that a query lists."""
    for row in await inside.fetch(query, *values):
        await inside.execute(row["statement"])
