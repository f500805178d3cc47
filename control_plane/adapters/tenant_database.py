"""One tenant's database as a whole: made closed, opened to its own roles, named, dropped."""

from typing import Literal
from uuid import UUID

import msgspec

from control_plane.adapters.postgres_server import Connection, require_server, translated
from control_plane.adapters.sql_text import fill
from control_plane.domain import names
from control_plane.domain.errors import ObjectInUse, SchemaMismatch, TenantMismatch

IdentityState = Literal["pooled", "primary", "previous", "scratch"]

# What the server says about a database; -2 marks one whose DROP was cut short (15.4 and later).
_INVALID = -2
_STATE = """
SELECT datistemplate, datallowconn, datconnlimit, pg_get_userbyid(datdba) AS owner
  FROM pg_database WHERE datname = $1
"""
# WAL_LOG copies a small template in half the time of FILE_COPY and forces no checkpoint.
_CREATE = """
CREATE DATABASE {name} TEMPLATE {template} STRATEGY WAL_LOG OWNER {owner} ALLOW_CONNECTIONS false
"""
# One transaction: whoever is not named here has no moment in which to connect (S-02).
# TEMPORARY: REFRESH MATERIALIZED VIEW CONCURRENTLY makes a temporary table as the view's owner.
_OPEN = """
ALTER DATABASE {name} OWNER TO {database_owner};
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT ON DATABASE {name} TO {app}, {migrator}, {backup};
GRANT CREATE, TEMPORARY ON DATABASE {name} TO {owner};
ALTER DATABASE {name} ALLOW_CONNECTIONS true;
"""
_CLOSE = """
REVOKE CONNECT ON DATABASE {name} FROM {app}, {migrator};
"""
_HOLDERS = """
SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE database = $1
UNION ALL
SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts WHERE database = $1
ORDER BY 1
"""
_WRITE_IDENTITY = """
INSERT INTO cp_meta.identity AS i (tenant_id, generation, state, system_identifier)
SELECT $1, $2, $3, system_identifier FROM pg_control_system()
ON CONFLICT (only_row) DO UPDATE
   SET tenant_id = excluded.tenant_id, generation = excluded.generation, state = excluded.state,
       system_identifier = excluded.system_identifier
 WHERE (i.tenant_id IS NULL OR i.tenant_id = excluded.tenant_id)
   AND i.generation <= excluded.generation
RETURNING true
"""
# A view of somebody else's would run their code as whoever reads it (S-08).
_HAS_IDENTITY = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'cp_meta' AND c.relname = 'identity' AND c.relkind = 'r'
       AND pg_get_userbyid(n.nspowner) = $1 AND pg_get_userbyid(c.relowner) = $1)
"""
_READ_IDENTITY = """
SELECT tenant_id, generation, state, system_identifier FROM cp_meta.identity
"""


class Identity(msgspec.Struct, frozen=True):
    """The row of ``cp_meta.identity``: whose database this is, and on which server it was made.

    ``tenant_id`` is ``None`` exactly while the database waits in the pool.
    """

    tenant_id: UUID | None
    generation: int
    state: IdentityState
    system_identifier: int


async def create_tenant_database(
    connection: Connection,
    name: str,
    template: str,
    roles: names.RoleSet,
    system_identifier: int,
) -> bool:
    """A clone of ``template`` that only ``roles`` may connect to; whether it was made just now.

    It is born closed and opened only after PUBLIC has lost its rights. One that exists is brought
    to the same state; one left invalid by a DROP that was cut short is made anew.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        SchemaMismatch: a template database has this name.
        ObjectInUse: somebody is connected to the template.
        DiskFull: the server has no room for it.
    """
    await require_server(connection, system_identifier)
    made = await _ensure_clone(connection, name, template)
    await open_to_roles(connection, name, roles)
    return made


async def open_to_roles(connection: Connection, name: str, roles: names.RoleSet) -> None:
    """Only ``roles`` may connect to the database, each with the rights it needs there.

    Brings one that an older version opened to what this version wants; the roles exist.
    """
    script = fill(
        _OPEN,
        name=name,
        database_owner=names.DATABASE_OWNER,
        owner=roles.owner,
        app=roles.app,
        migrator=roles.migrator,
        backup=roles.backup,
    )
    with translated():
        await connection.execute(script)


async def close_to_roles(connection: Connection, name: str, roles: names.RoleSet) -> None:
    """No login of the tenant may connect to the database any more; the backup role still may."""
    with translated():
        await connection.execute(fill(_CLOSE, name=name, app=roles.app, migrator=roles.migrator))


async def drop_tenant_database(connection: Connection, name: str, system_identifier: int) -> bool:
    """Drop the database with everyone still connected; whether there was one.

    Raises:
        TenantMismatch: this is not the server with ``system_identifier``.
        SchemaMismatch: a template database has this name.
        ObjectInUse: a replication slot or prepared transaction belongs to it; DROP DATABASE would
            destroy an idle slot without a word.
    """
    await require_server(connection, system_identifier)
    with translated():
        state = await connection.fetchrow(_STATE, name)
    if state is None:
        return False
    _refuse_template(name, is_template=state["datistemplate"])
    with translated():
        holders = await connection.fetch(_HOLDERS, name)
    if holders:
        found = ", ".join(row[0] for row in holders)
        raise ObjectInUse(f"database {name} is held by {found}; end the move that made it")
    await drop_database(connection, name, valid=state["datconnlimit"] != _INVALID)
    return True


async def drop_database(connection: Connection, name: str, *, valid: bool = True) -> None:
    """Close the database to newcomers, end its sessions, drop it. The caller made sure which it is.

    Raises:
        ObjectInUse: a session of it does not end.
    """
    with translated():
        if valid:
            close = fill("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name)
            await connection.execute(close)
        await connection.execute(fill("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=name))


async def write_identity(
    connection: Connection, tenant_id: UUID | None, generation: int, state: IdentityState
) -> None:
    """Say whose database ``connection`` is connected to; the server's own identifier is added.

    Raises:
        TenantMismatch: it already belongs to another tenant or to a later generation.
    """
    with translated():
        written = await connection.fetchval(_WRITE_IDENTITY, tenant_id, generation, state)
    if not written:
        found = await read_identity(connection)
        raise TenantMismatch(
            f"this database says it is {found}; it is not made generation {generation} "
            f"of tenant {tenant_id}"
        )


async def is_ours(connection: Connection, name: str) -> bool:
    """Whether the database is there, neither half made nor half dropped, and no loader's.

    What still belongs to who loads it has served nobody; what was loaded may lie in wait there for
    an administrator who looks (S-08).
    """
    with translated():
        row = await connection.fetchrow(_STATE, name)
    if row is None or row["owner"] != names.DATABASE_OWNER:
        return False
    return bool(row["datallowconn"] and row["datconnlimit"] != _INVALID)


async def read_identity(connection: Connection) -> Identity | None:
    """What the database says it is; ``None`` if it is a fresh clone, or has no table of ours."""
    with translated():
        known = await connection.fetchval(_HAS_IDENTITY, names.DATABASE_OWNER)
        row = await connection.fetchrow(_READ_IDENTITY) if known else None
    return Identity(**dict(row)) if row else None


async def _ensure_clone(connection: Connection, name: str, template: str) -> bool:
    with translated():
        state = await connection.fetchrow(_STATE, name)
    if state is not None:
        _refuse_template(name, is_template=state["datistemplate"])
        if state["datconnlimit"] != _INVALID:
            return False
        await drop_database(connection, name, valid=False)
    create = fill(_CREATE, name=name, template=template, owner=names.DATABASE_OWNER)
    with translated():
        await connection.execute(create)
    return True


def _refuse_template(name: str, *, is_template: bool) -> None:
    if is_template:
        raise SchemaMismatch(f"database {name} is a template; it is never handed out or dropped")
