"""A database that belongs to some roles, handed to others: the template's, or another tenant's."""

from collections.abc import Mapping

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import load
from control_plane.domain.errors import SchemaMismatch
from control_plane.domain.names import RoleSet

_LEFT = """
SELECT format('%s %s', r.rolname, pg_describe_object(s.classid, s.objid, s.objsubid)) AS dependent
  FROM pg_shdepend s
  JOIN pg_roles r ON r.oid = s.refobjid
  JOIN pg_database d ON d.datname = current_database()
 WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($1::text[])
   AND (s.dbid = d.oid OR s.classid = 'pg_database'::regclass AND s.objid = d.oid)
 ORDER BY 1 LIMIT 5
"""


async def adopt_roles(inside: Connection, old: RoleSet, new: RoleSet) -> None:
    """Hand the database ``inside`` is in, with all that is in it, from one tenant to another.

    What belonged to a role of ``old`` belongs to the same role of ``new``; so it is with every
    privilege, default privilege, policy and user mapping. Nobody may be connected to the database.

    Raises:
        SchemaMismatch: something still depends on a role of ``old``.
    """
    await hand_over(inside, dict(zip(old.every, new.every, strict=True)), new)
    with translated():
        rows = await inside.fetch(_LEFT, list(old.every))
    if rows:
        left = "; ".join(row["dependent"] for row in rows)
        raise SchemaMismatch(f"roles of the backup's tenant are still in use: {left}")


async def hand_over(connection: Connection, heirs: Mapping[str, str], roles: RoleSet) -> None:
    """Give what belongs to, or is granted to, each key of ``heirs`` to its value instead.

    The values are roles of ``roles``, whose backup role may read everything from then on. One
    transaction; a second call changes nothing.
    """
    owners = [roles.owner, roles.auditor]
    with translated():
        rows = await connection.fetch(
            load("hand_over_roles"), list(heirs), list(heirs.values()), roles.backup, owners
        )
        # Several statements in one message are one transaction.
        await connection.execute(";\n".join(row["statement"] for row in rows))
