"""The database a tenant moves into: made empty, furnished, filled by a login of its own, opened.

Everything in it comes from a tenant, so a login without any special right loads it (S-08). What
only an administrator can make is made while it is still empty.
"""

import re
from collections.abc import Iterable

from control_plane.adapters import scram
from control_plane.adapters.admin_sessions import terminate_logins
from control_plane.adapters.administrator import (
    abilities,
    attributes,
    guarded_settings,
    reach,
)
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.scratch_database import (
    LOADER_SETTINGS,
    execute_listed,
    loader_of,
)
from control_plane.adapters.sql_text import fill, load
from control_plane.adapters.tenant_database import drop_tenant_database, open_to_roles
from control_plane.config import Secret
from control_plane.domain import names
from control_plane.domain.backups import Extension, Locale

# A password of 256 random bits that lives for one copy; see migrator_lease.
_ITERATIONS = 8

# BYPASSRLS: keys are checked over tables whose owner is bound by policies (FORCE).
_LOADER = """
{reach}
DO $body$ BEGIN
    IF to_regrole('{loader}') IS NULL THEN CREATE ROLE {loader}; END IF;
END $body$;
ALTER ROLE {loader} NOLOGIN PASSWORD NULL INHERIT {past_policies} CONNECTION LIMIT 16;
ALTER ROLE {loader} RESET ALL;
ALTER ROLE {loader} SET search_path = pg_catalog;
ALTER ROLE {loader} SET synchronous_commit = off;
ALTER ROLE {loader} SET maintenance_work_mem = '256MB';
ALTER ROLE {loader} SET client_connection_check_interval = '1s';
ALTER ROLE {loader} SET jit = off;
GRANT {owner}, {auditor} TO {loader};
"""
_LET_IN = "ALTER ROLE {loader} LOGIN PASSWORD {verifier};"
_SHUT_OUT = "ALTER ROLE {loader} NOLOGIN PASSWORD NULL;"
_DISOWN = """
REASSIGN OWNED BY {loader} TO {owner};
DROP OWNED BY {loader};
DROP ROLE {loader};
"""
# What the owner of a database may set for everybody who enters it.
_FORGET_SETTINGS = "ALTER DATABASE {name} RESET ALL"
_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
_GIVE_TO_LOADER = """
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
ALTER DATABASE {name} OWNER TO {loader};
ALTER DATABASE {name} ALLOW_CONNECTIONS true;
"""
_READABLE = """
GRANT USAGE ON SCHEMA cp_meta TO {backup};
GRANT SELECT ON ALL TABLES IN SCHEMA cp_meta TO {backup};
"""
# A row here that has arrived on the other side proves that all before it has, too. It is ours: what
# its owner hangs on a table runs as whoever writes to it (S-08).
_MARKER = """
DO $body$ BEGIN
    IF (SELECT relowner <> to_regrole('{database_owner}') FROM pg_class
         WHERE oid = to_regclass('cp_meta.move_marker')) THEN
        DROP TABLE cp_meta.move_marker;
    END IF;
END $body$;
CREATE TABLE IF NOT EXISTS cp_meta.move_marker (id uuid PRIMARY KEY);
ALTER TABLE cp_meta.move_marker OWNER TO {database_owner};
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
        await admin.execute(await _loader_script(admin, loader, roles))
        await admin.execute(str(statement))
        await admin.execute(fill(_GIVE_TO_LOADER, name=name, loader=loader))


async def open_loader(admin: Connection, name: str) -> Secret:
    """Let the loader of this database in; its password until ``settle_target``."""
    password = scram.new_password()
    verifier = scram.verifier(password, iterations=_ITERATIONS)
    with translated():
        await admin.execute(fill(_LET_IN, loader=loader_of(name), verifier=verifier))
    return password


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
        await inside.execute(
            fill(_MARKER, database_owner=names.DATABASE_OWNER, backup=roles.backup)
        )


async def settle_target(inside: Connection, name: str, roles: names.RoleSet) -> None:
    """The loader is gone with all that it set or gave away; the tenant's own roles may connect.

    Raises:
        ObjectInUse: a session of the loader does not end.
    """
    loader = loader_of(name)
    with translated():
        there = await inside.fetchval(_EXISTS, loader)
        if there:
            await inside.execute(fill(_SHUT_OUT, loader=loader))
    await terminate_logins(inside, [loader])
    if there:
        with translated():
            await inside.execute(fill(_FORGET_SETTINGS, name=name))
            await execute_listed(inside, load("loader_traces"))
    await open_to_roles(inside, name, roles)
    with translated():
        if there:
            await inside.execute(fill(_DISOWN, loader=loader, owner=roles.owner))


async def analyze(inside: Connection) -> None:
    """The planner knows the tables."""
    with translated():
        await inside.execute("SET statement_timeout = 0")
        await inside.execute("ANALYZE", timeout=_ANALYZE_SECONDS)


async def _loader_script(admin: Connection, loader: str, roles: names.RoleSet) -> str:
    may = await abilities(admin)
    made = fill(
        _LOADER,
        loader=loader,
        owner=roles.owner,
        auditor=roles.auditor,
        reach=reach(may),
        past_policies=attributes(may, past_policies=True),
    )
    return made + guarded_settings(may, loader, LOADER_SETTINGS)
