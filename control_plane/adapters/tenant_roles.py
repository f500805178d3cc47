"""The roles of one tenant on one server: made, opened, closed, inspected, dropped.

Every function may be run twice; each reaches the state it names from wherever it starts. The
layout is that of security.md: nobody who can log in owns anything.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from control_plane.adapters.admin_sessions import terminate_logins
from control_plane.adapters.administrator import (
    abilities,
    attributes,
    guarded_settings,
    reach,
)
from control_plane.adapters.postgres_server import Connection, require_server, translated
from control_plane.adapters.sql_text import fill, load
from control_plane.domain import names
from control_plane.domain.administrators import GUARDED_SETTINGS, Abilities
from control_plane.domain.errors import ObjectInUse
from control_plane.domain.tenants import LoginLimits

_KB_PER_MB = 1024
_UNLIMITED = -1

_OPEN = """
ALTER ROLE {login} LOGIN PASSWORD {verifier} VALID UNTIL 'infinity' {attributes};
"""
_CLOSE = """
DO $body$ BEGIN
    IF to_regrole('{login}') IS NOT NULL THEN ALTER ROLE {login} NOLOGIN; END IF;
END $body$;
"""
_DROP = """
DROP ROLE IF EXISTS {owner}, {app}, {login_a}, {login_b}, {migrator}, {backup}, {auditor},
    {reader};
"""
# Memberships disappear with the role; a database entry means that the database still exists.
_DEPENDENTS = """
SELECT format('%s: %s object(s) in %s', r.rolname, count(*), coalesce(d.datname, 'shared catalogs'))
  FROM pg_shdepend s
  JOIN pg_roles r ON r.oid = s.refobjid
  LEFT JOIN pg_database d ON d.oid = CASE WHEN s.classid = 'pg_database'::regclass
                                          THEN s.objid ELSE s.dbid END
 WHERE s.refclassid = 'pg_authid'::regclass AND s.classid <> 'pg_auth_members'::regclass
   AND r.rolname = ANY ($1::text[])
 GROUP BY r.rolname, d.datname
 ORDER BY 1
"""
_MOST_SESSIONS = """
SELECT max(n) FROM (SELECT count(*)::int AS n FROM pg_stat_activity
                     WHERE usename = ANY ($1::text[]) GROUP BY usename) counted
"""
# Verifiers are in a catalog that only superusers may read.
_INSPECT = """
SELECT a.rolname AS login, a.rolcanlogin, {verifier} AS verifier, a.rolconnlimit,
       a.rolsuper OR a.rolcreatedb OR a.rolcreaterole OR a.rolreplication OR a.rolbypassrls
           AS privileged,
       ARRAY (SELECT m.roleid::regrole::text FROM pg_auth_members m
               WHERE m.member = a.oid ORDER BY 1) AS member_of,
       coalesce((SELECT s.setconfig FROM pg_db_role_setting s
                  WHERE s.setrole = a.oid AND s.setdatabase = 0), '{}') AS settings,
       ARRAY (SELECT format('%s: %s', d.datname, c)
                FROM pg_db_role_setting s
                JOIN pg_database d ON d.oid = s.setdatabase
               CROSS JOIN unnest(s.setconfig) AS c
               WHERE s.setrole = a.oid ORDER BY 1) AS database_settings
  FROM {roles} a
 WHERE a.rolname = ANY ($1::text[])
"""


class LoginFacts(msgspec.Struct, frozen=True):
    """One login as the server has it.

    ``verifier`` is ``None`` also where the administrator may not see it (``verifier_shown``).
    ``settings`` are ``name=value``, without those that it may not set; ``database_settings`` are
    ``database: name=value`` and are never made by us, so any is drift (S-06). ``privileged``: any
    of SUPERUSER, CREATEDB, CREATEROLE, REPLICATION, BYPASSRLS.
    """

    can_login: bool
    verifier: str | None
    verifier_shown: bool
    connection_limit: int
    privileged: bool
    member_of: tuple[str, ...]
    settings: frozenset[str]
    database_settings: tuple[str, ...]


async def bootstrap_server(connection: Connection) -> None:
    """Make the roles that own databases and templates, and close ``postgres`` and ``template1``."""
    may = await abilities(connection)
    script = fill(
        load("bootstrap_server"),
        reach=reach(may),
        attributes=attributes(may),
        owner=names.DATABASE_OWNER,
        template_owner=names.TEMPLATE_OWNER,
        template_app=names.TEMPLATE_APP,
        template_auditor=names.TEMPLATE_AUDITOR,
        template_reader=names.TEMPLATE_READER,
    )
    with translated():
        await connection.execute(script)


async def ensure_role_set(
    connection: Connection, roles: names.RoleSet, limits: LoginLimits
) -> None:
    """The tenant's eight roles with their attributes, memberships and limits, in one transaction.

    A login is made closed; one that exists keeps its password and stays open or closed. A role
    that an older version did not know is made beside those that exist.
    """
    may = await abilities(connection)
    script = fill(
        load("ensure_role_set"),
        reach=reach(may),
        attributes=attributes(may),
        past_policies=attributes(may, past_policies=True),
        **_role_names(roles),
    )
    settings = (_limits_script(login, limits, may) for login in roles.logins)
    with translated():
        await connection.execute("\n".join((script, *settings)))


async def open_login(
    connection: Connection, login: str, verifier: str, limits: LoginLimits
) -> None:
    """Let ``login`` in with the password of ``verifier``, within ``limits``."""
    may = await abilities(connection)
    opened = fill(_OPEN, login=login, verifier=verifier, attributes=attributes(may))
    script = _limits_script(login, limits, may) + opened
    with translated():
        await connection.execute(script)


async def close_login(connection: Connection, login: str) -> None:
    """Keep ``login`` out from now on; sessions it has are ended by ``terminate_login_sessions``."""
    with translated():
        await connection.execute(fill(_CLOSE, login=login))


async def close_logins(connection: Connection, logins: Sequence[str]) -> None:
    """``close_login`` for all of them, in one message."""
    with translated():
        await connection.execute("".join(fill(_CLOSE, login=login) for login in logins))


async def terminate_login_sessions(connection: Connection, logins: Sequence[str]) -> int:
    """End every session of these logins; how many there were. Close the logins first.

    Raises:
        ObjectInUse: one of them did not end within about 5 seconds.
    """
    return await terminate_logins(connection, list(logins))


async def most_sessions(connection: Connection, logins: Sequence[str]) -> int:
    """How many sessions the one of these logins has that has most."""
    with translated():
        counted: int | None = await connection.fetchval(_MOST_SESSIONS, list(logins))
    return counted or 0


async def drop_role_set(
    connection: Connection, roles: names.RoleSet, system_identifier: int
) -> None:
    """Remove the tenant's roles; its database must be gone.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        ObjectInUse: something still belongs to, or is granted to, one of the roles.
    """
    await require_server(connection, system_identifier)
    with translated():
        rows = await connection.fetch(_DEPENDENTS, list(roles.every))
    if rows:
        found = "; ".join(row[0] for row in rows)
        raise ObjectInUse(f"roles are still in use ({found}); drop the tenant's database first")
    logins = (*roles.logins, roles.migrator, roles.backup)
    with translated():
        await connection.execute("".join(fill(_CLOSE, login=login) for login in logins))
    await terminate_login_sessions(connection, logins)
    with translated():
        await connection.execute(fill(_DROP, **_role_names(roles)))


async def inspect_logins(connection: Connection, logins: Iterable[str]) -> Mapping[str, LoginFacts]:
    """What the server holds about each of these logins; one that does not exist is left out."""
    may = await abilities(connection)
    verifier, source = ("a.rolpassword", "pg_authid") if may.superuser else ("NULL", "pg_roles")
    query = _INSPECT.replace("{verifier}", verifier).replace("{roles}", source)
    with translated():
        rows = await connection.fetch(query, list(logins))
    return {
        row["login"]: LoginFacts(
            can_login=row["rolcanlogin"],
            verifier=row["verifier"],
            verifier_shown=may.superuser,
            connection_limit=row["rolconnlimit"],
            privileged=row["privileged"],
            member_of=tuple(row["member_of"]),
            settings=frozenset(filter(_is_settable(may), row["settings"])),
            database_settings=tuple(row["database_settings"]),
        )
        for row in rows
    }


def wanted_settings(limits: LoginLimits, may: Abilities) -> frozenset[str]:
    """``LoginFacts.settings`` of a login that nobody has changed since such an administrator."""
    values = _limit_values(limits)
    wanted = {
        "search_path=public",
        f"statement_timeout={values['statement_timeout_ms']}",
        f"idle_in_transaction_session_timeout={values['idle_in_transaction_ms']}",
        f"lock_timeout={values['lock_timeout_ms']}",
        f"temp_file_limit={_temp_file_limit(limits)}",
    }
    return frozenset(filter(_is_settable(may), wanted))


def wanted_connection_limit(limits: LoginLimits) -> int:
    """``LoginFacts.connection_limit`` of a login that nobody has changed."""
    return limits.connections or _UNLIMITED


def _is_settable(may: Abilities) -> Callable[[str], bool]:
    beyond = frozenset(GUARDED_SETTINGS) - may.settings
    return lambda setting: setting.partition("=")[0] not in beyond


def _limits_script(login: str, limits: LoginLimits, may: Abilities) -> str:
    script = fill(load("login_limits"), login=login, **_limit_values(limits))
    return script + guarded_settings(may, login, {"temp_file_limit": _temp_file_limit(limits)})


def _temp_file_limit(limits: LoginLimits) -> int:
    return limits.temp_file_limit_mb * _KB_PER_MB or _UNLIMITED


def _limit_values(limits: LoginLimits) -> dict[str, int]:
    return {
        "connections": wanted_connection_limit(limits),
        "statement_timeout_ms": limits.statement_timeout_ms,
        "idle_in_transaction_ms": limits.idle_in_transaction_ms,
        "lock_timeout_ms": limits.lock_timeout_ms,
    }


def _role_names(roles: names.RoleSet) -> dict[str, str]:
    return {
        "owner": roles.owner,
        "app": roles.app,
        "login_a": roles.login_a,
        "login_b": roles.login_b,
        "migrator": roles.migrator,
        "backup": roles.backup,
        "auditor": roles.auditor,
        "reader": roles.reader,
    }
