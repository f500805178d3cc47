"""The database a tenant moves into: made empty, furnished, filled by a login of its own, opened.

Everything in it comes from a tenant, so a login without any special right loads it (S-08). What
only an administrator can make is made while it is still empty.
"""

import re
from collections.abc import Iterable

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.scratch_database import close_loader, dismiss_loader, loader_of
from control_plane.adapters.sql_text import fill, load
from control_plane.adapters.tenant_database import drop_tenant_database, open_to_roles
from control_plane.domain import names
from control_plane.domain.backups import Extension, Locale

_GIVE_TO_LOADER = """
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
ALTER DATABASE {name} OWNER TO {loader};
ALTER DATABASE {name} ALLOW_CONNECTIONS true;
"""
_READABLE = """
GRANT USAGE ON SCHEMA cp_meta TO {backup};
GRANT SELECT ON ALL TABLES IN SCHEMA cp_meta TO {backup};
"""
# A row here that has arrived on the other side proves that all before it has, too.
_MARKER = """
CREATE TABLE IF NOT EXISTS cp_meta.move_marker (id uuid PRIMARY KEY);
ALTER TABLE cp_meta.move_marker OWNER TO {owner};
GRANT SELECT ON cp_meta.move_marker TO {backup};
"""
_EXTENSION = """
SELECT format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I', $1::text, $2::text),
       format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', $2::text, $3::text)
"""
_ANALYZE_SECONDS = 24 * 3600.0
_OURS = re.compile(r"pg_catalog|public")


async def create_target(
    admin: Connection,
    name: str,
    locale: Locale,
    roles: names.RoleSet,
    system_identifier: int,
) -> None:
    """An empty database that only its loader may enter; one that was there is thrown away.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        ObjectInUse: something keeps a session, slot or transaction of the old one.
        DiskFull: the server has no room for it.
    """
    loader = loader_of(name)
    await drop_tenant_database(admin, name, system_identifier)
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
        await admin.execute(fill(_GIVE_TO_LOADER, name=name, loader=loader))


async def furnish_target(
    inside: Connection, roles: names.RoleSet, extensions: Iterable[Extension]
) -> frozenset[str]:
    """What only an administrator makes: our own schema and the extensions; schemas made for them.

    Raises:
        ServerRefused: an extension cannot be made here.
    """
    made = set()
    script = fill(
        load("template_metadata"),
        database_owner=names.DATABASE_OWNER,
        template_owner=roles.owner,
        template_app=roles.app,
        template_reader=roles.reader,
    )
    with translated():
        await inside.execute(script + fill(_READABLE, backup=roles.backup))
        for extension in extensions:
            row = await inside.fetchrow(_EXTENSION, extension.name, extension.schema, roles.owner)
            if row is not None and _OURS.fullmatch(extension.schema) is None:
                await inside.execute(row[1])
                made.add(extension.schema)
            if row is not None:
                await inside.execute(row[0])
    return frozenset(made)


async def ensure_marker(inside: Connection, roles: names.RoleSet) -> None:
    """The table whose rows show how far changes have arrived is there."""
    with translated():
        await inside.execute(fill(_MARKER, owner=roles.owner, backup=roles.backup))


async def settle_target(inside: Connection, name: str, roles: names.RoleSet) -> None:
    """The loader is gone, the tenant's own roles may connect, the planner knows the tables.

    Raises:
        ObjectInUse: a session of the loader does not end.
    """
    loader = loader_of(name)
    await close_loader(inside, loader)
    await open_to_roles(inside, name, roles)
    await dismiss_loader(inside, loader, roles)
    with translated():
        await inside.execute("SET statement_timeout = 0")
        await inside.execute("ANALYZE", timeout=_ANALYZE_SECONDS)
