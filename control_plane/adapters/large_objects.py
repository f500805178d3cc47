"""Large objects carried to another server, with their owners and privileges.

An administrator makes them there: they are bytes, and nothing of a tenant's runs on the way.
"""

from control_plane.adapters.postgres_server import Connection, translated

_PIECE = 1 << 20
_LIST = """
SELECT l.oid, pg_get_userbyid(l.lomowner)::text AS owner,
       coalesce(array_agg(format('GRANT %s ON LARGE OBJECT %s TO %s', e.privilege_type, l.oid,
                CASE e.grantee WHEN 0 THEN 'PUBLIC'
                               ELSE quote_ident(pg_get_userbyid(e.grantee)) END))
                FILTER (WHERE e.grantee <> l.lomowner), '{}') AS grants
  FROM pg_largeobject_metadata l
  LEFT JOIN LATERAL aclexplode(l.lomacl) AS e ON true
 GROUP BY l.oid, l.lomowner ORDER BY l.oid
"""


async def copy_large_objects(reading: Connection, target: Connection) -> int:
    """Copy all of them; how many. ``reading`` may read every one, ``target`` is an administrator.

    Those that an attempt before this one has made are written again.
    """
    with translated():
        rows = await reading.fetch(_LIST)
        for row in rows:
            async with target.transaction():
                await _copy(reading, target, row["oid"])
                await target.execute(
                    f"ALTER LARGE OBJECT {row['oid']} OWNER TO "
                    + str(await target.fetchval("SELECT quote_ident($1)", row["owner"]))
                )
                for grant in row["grants"]:
                    await target.execute(grant)
    return len(rows)


async def _copy(reading: Connection, target: Connection, oid: int) -> None:
    await target.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = $1", oid)
    await target.execute("SELECT lo_create($1)", oid)
    offset = 0
    while piece := await reading.fetchval("SELECT lo_get($1, $2, $3)", oid, offset, _PIECE):
        await target.execute("SELECT lo_put($1, $2, $3)", oid, offset, piece)
        offset += len(piece)


async def digest_large_objects(reading: Connection) -> tuple[int, str]:
    """How many there are, and the sum of the hashes of their bytes."""
    with translated():
        row = await reading.fetchrow(
            """SELECT count(*) AS found, coalesce(sum(hash_record_extended(
                      ROW(oid, lo_get(oid)), 0)), 0)::text AS digest FROM pg_largeobject_metadata"""
        )
    return (row["found"], row["digest"]) if row else (0, "0")
