"""Housekeeping in a tenant's database: materialized views refreshed, pgaudit pointed at PHI."""

import re

import asyncpg
import msgspec

from control_plane.adapters.postgres_server import Connection, translate, translated
from control_plane.adapters.sql_text import fill, load
from control_plane.domain.errors import TenantryError
from control_plane.domain.names import RoleSet

# Under the driver's own limit of 90 seconds for a command.
_REFRESH = """
SET LOCAL ROLE {owner};
SET LOCAL search_path = pg_catalog;
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '80s';
"""
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtextextended('tenantry:refresh', 0))"
# pgaudit defines its settings when the server has loaded it; without it they do not exist.
_READ_AUDIT = """
SELECT current_setting('pgaudit.role', true) IS NOT NULL AS loaded,
       coalesce((SELECT 'pgaudit.role=' || $1 = ANY (s.setconfig)
                   FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                  WHERE d.datname = current_database() AND s.setrole = 0), false) AS pointed
"""
# Parameters carry PHI, and so may statements: values belong in parameters.
_POINT = """
ALTER DATABASE {database} SET pgaudit.role = {auditor};
ALTER DATABASE {database} SET pgaudit.log_parameter = off;
ALTER DATABASE {database} SET pgaudit.log_catalog = off;
"""
_LINE = re.compile(r"\s+")


class View(msgspec.Struct, frozen=True):
    """A materialized view, its name quoted; ``concurrently``: readers need not wait for it."""

    name: str
    concurrently: bool


async def owned_views(connection: Connection, roles: RoleSet) -> list[View]:
    """The materialized views of the tenant's owner, each after those that it reads from."""
    with translated():
        rows = await connection.fetch(load("owned_views"), roles.owner)
    return [View(**dict(row)) for row in rows]


async def refresh_views(connection: Connection, roles: RoleSet) -> list[str]:
    """Refresh every materialized view of the tenant's owner; what went wrong, in a line each.

    ``connection`` is an administrator's. Each view has a transaction of its own, as the owner and
    never two at once; Postgres runs the view's functions in a security-restricted operation, in
    which the role cannot be changed back (S-08).

    Raises:
        ServerUnavailable: the server went away.
    """
    problems = []
    for view in await owned_views(connection, roles):
        try:
            await _refresh(connection, roles, view)
        except asyncpg.PostgresError as error:
            problem: TenantryError = translate(error)
            problems.append(_LINE.sub(" ", f"{view.name}: {problem.message}"))
    return problems


async def point_read_audit(connection: Connection, roles: RoleSet, database: str) -> bool:
    """Let pgaudit log statements that touch PHI columns; ``False`` where the server has none."""
    with translated():
        row = await connection.fetchrow(_READ_AUDIT, roles.auditor)
        if row is None or not row["loaded"]:
            return False
        if not row["pointed"]:
            await connection.execute(fill(_POINT, database=database, auditor=roles.auditor))
    return True


async def _refresh(connection: Connection, roles: RoleSet, view: View) -> None:
    async with connection.transaction():
        if await connection.fetchval(_ALONE):
            await connection.execute(fill(_REFRESH, owner=roles.owner))
            how = "CONCURRENTLY " if view.concurrently else ""
            await connection.execute(f"REFRESH MATERIALIZED VIEW {how}{view.name}")
