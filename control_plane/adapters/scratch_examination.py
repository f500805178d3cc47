"""What must hold in a restored database before it is let near a route.

Nothing here runs what a tenant left in its database with more rights than the tenant has (S-08):
catalogs are read, and indexes are compared with their tables as the owner of both.
"""

import asyncpg
import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from control_plane.adapters.sql_text import fill, load
from control_plane.domain import names
from control_plane.domain.backups import Manifest

_MAJOR = 10_000
# A large index is read from end to end.
_CHECK_SECONDS = 24 * 3600.0

_VERSION = "SELECT current_setting('server_version_num')::integer"
# Rolled back afterwards, so that nothing is left of it however this ends. A tenant cannot make
# anything in pg_catalog; one that has amcheck itself has it in a schema of its choice.
_MAKE_AMCHECK = """
SET LOCAL statement_timeout = 0;
CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog;
"""
_AMCHECK = """
SELECT format('GRANT USAGE ON SCHEMA %1$I TO %2$I; GRANT EXECUTE ON FUNCTION '
              '%1$I.bt_index_check(regclass, boolean), '
              '%1$I.verify_heapam(regclass, boolean, boolean, text, bigint, bigint) TO %2$I',
              nspname, $1::text) AS lend,
       format('SELECT %I.bt_index_check($1::oid::regclass, true)', nspname) AS index_check,
       format('SELECT count(*), min(msg) FROM %I.verify_heapam($1::oid::regclass, false, true, '
              '''none'', NULL::bigint, NULL::bigint)', nspname) AS table_check
  FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'amcheck'
"""
_BECOME = "SET LOCAL ROLE {owner}"
_RELATIONS = """
SELECT c.oid, c.oid::regclass::text AS name, relkind = 'i' AS is_index
  FROM pg_class c LEFT JOIN pg_index ON indexrelid = c.oid LEFT JOIN pg_am a ON a.oid = c.relam
 WHERE relpersistence <> 't'
   AND (relkind IN ('r', 'm', 't') AND amname = 'heap'
        OR relkind = 'i' AND amname = 'btree' AND indisvalid AND indisready)
 ORDER BY c.oid
"""


class Examination(msgspec.Struct, frozen=True):
    """Everything that is wrong with a database, one sentence each.

    ``checked``: tables and indexes were read from end to end, for which it takes a superuser.
    """

    problems: list[str]
    checked: bool


async def examine(inside: Connection, manifest: Manifest, roles: names.RoleSet) -> Examination:
    """What is wrong with the database ``inside`` is in.

    It was loaded from the backup of ``manifest``, and its loader was dismissed. ``roles`` are
    those it belongs to now. ``inside`` is an administrator's.
    """
    problems = [
        *await _schema_problems(inside, manifest, roles),
        *await _access_problems(inside, roles),
    ]
    damages = await _damages(inside, roles)
    return Examination([*problems, *(damages or [])], checked=damages is not None)


async def _schema_problems(
    inside: Connection, manifest: Manifest, roles: names.RoleSet
) -> list[str]:
    """Between major versions schemas are worded differently, and are not compared."""
    with translated():
        version = await inside.fetchval(_VERSION)
    if not manifest.schema_fingerprint or version // _MAJOR != manifest.server_version // _MAJOR:
        return []
    found = await read_fingerprint(inside, role_names(roles))
    if found == manifest.schema_fingerprint:
        return []
    return [f"the schema is not the one of the backup: its fingerprint is {found[:16]}…"]


async def _access_problems(inside: Connection, roles: names.RoleSet) -> list[str]:
    with translated():
        rows = await inside.fetch(load("foreign_access"), list(roles.every), names.DATABASE_OWNER)
    return [row["problem"] for row in rows]


async def _damages(inside: Connection, roles: names.RoleSet) -> list[str] | None:
    """What amcheck finds in tables, and in B-trees compared with their tables.

    ``None`` where the administrator may not make that extension, or lend it.
    """
    transaction = inside.transaction()
    with translated():
        await transaction.start()
        try:
            ways = await _lent_amcheck(inside, roles)
            return None if ways is None else await _looked_through(inside, roles, ways)
        finally:
            await transaction.rollback()


async def _lent_amcheck(inside: Connection, roles: names.RoleSet) -> asyncpg.Record | None:
    try:
        await inside.execute(_MAKE_AMCHECK)
        (ways,) = await inside.fetch(_AMCHECK, roles.owner)
        await inside.execute(ways["lend"])
    except asyncpg.InsufficientPrivilegeError:
        return None
    return ways


async def _looked_through(
    inside: Connection, roles: names.RoleSet, ways: asyncpg.Record
) -> list[str]:
    found = []
    relations = await inside.fetch(_RELATIONS)
    await inside.execute(fill(_BECOME, owner=roles.owner))
    for row in relations:
        way = ways["index_check" if row["is_index"] else "table_check"]
        if damage := await _damage(inside, way, row["oid"]):
            found.append(f"{row['name']}: {damage}")
    return found


async def _damage(inside: Connection, way: str, relation: int) -> str | None:
    """What is wrong with one relation, if anything; its lock is given back."""
    savepoint = inside.transaction()
    await savepoint.start()
    try:
        damage: str | None = await inside.fetchval(way, relation, timeout=_CHECK_SECONDS)
    except (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError) as error:
        damage = str(error.args[0])
    finally:
        await savepoint.rollback()
    return damage
