"""Whose turn it is to be looked after, and the seals of the tenants' audit logs."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.domain.audit_chain import Anchor

_DATABASE = ", ".join(f"d.{name}" for name in Database.__struct_fields__)
_ANCHOR = ", ".join(Anchor.__struct_fields__)
# The next time is spread by a tenth, so that tenants made together do not stay together.
_TAKE_DUE = (
    """
    WITH busy AS (
        SELECT DISTINCT server_id FROM databases
         WHERE upkeep_began_at > clock_timestamp() - make_interval(secs => $3)
    ), due AS (
        SELECT d.id FROM databases d
          JOIN tenants t ON t.id = d.tenant_id AND t.state IN ('active', 'suspended')
          JOIN servers s ON s.id = d.server_id AND s.reachable
               AND s.id NOT IN (SELECT server_id FROM busy)
         WHERE d.purpose = 'primary' AND d.upkeep_due_at <= clock_timestamp()
           AND (d.upkeep_done_at IS NOT NULL
                OR d.created_at <= clock_timestamp() - make_interval(secs => $2::float8 * 60))
           AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = d.tenant_id
                           AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
         ORDER BY d.upkeep_due_at LIMIT $1
           FOR UPDATE OF d SKIP LOCKED)
    UPDATE databases d
       SET upkeep_began_at = clock_timestamp(),
           upkeep_due_at = clock_timestamp()
                         + make_interval(secs => $2::float8 * 60 * (0.9 + 0.2 * random()))
      FROM due WHERE d.id = due.id
    RETURNING """  # noqa: S608 - the struct's own field names
    + _DATABASE
)

# Of each line the newest anchor that belongs to the tenant's chain, and of those the newest.
_LAST = f"""
    SELECT {_ANCHOR} FROM audit_lineage({{tenant}}) g CROSS JOIN LATERAL (
        SELECT {_ANCHOR} FROM audit_anchors a WHERE a.line = g.line AND a.block <= g.until
        ORDER BY a.block DESC LIMIT 1) AS newest
    ORDER BY block DESC LIMIT 1
"""  # noqa: S608 - the struct's own field names

# A worker that died holds its server up for no longer.
_LOST_AFTER_SECONDS = 120.0


async def take_due(db: Connection, *, limit: int, minutes: float) -> list[Database]:
    """Up to ``limit`` databases whose turn it is; their next turn is ``minutes`` from now.

    A tenant that some operation works on is left for later, and a new one rests for as long as
    everybody else between two turns. Nothing is taken of a server of which something taken before
    is not done yet: one worker looks after a server at a time.
    """
    rows = await db.fetch(_TAKE_DUE, limit, minutes, _LOST_AFTER_SECONDS)
    return [Database(**dict(row)) for row in rows]


async def record_done(db: Connection, database_id: UUID, problem: str | None) -> None:
    """The database was looked after; ``problem`` in one line when not all went well."""
    await db.execute(
        """UPDATE databases SET upkeep_done_at = clock_timestamp(), upkeep_problem = $2,
                  upkeep_began_at = NULL
           WHERE id = $1""",
        database_id,
        problem,
    )


class Chain(msgspec.Struct, frozen=True):
    """The line that a tenant's seals go on, and the newest anchor, ``None`` while there is none."""

    line: UUID
    last: Anchor | None


async def chain_of(db: Connection, tenant_id: UUID) -> Chain:
    """Where the next seal of a tenant belongs."""
    line = await db.fetchval(
        "SELECT coalesce(audit_line, id) FROM tenants WHERE id = $1", tenant_id
    )
    row = await db.fetchrow(_LAST.format(tenant="$1"), tenant_id)
    return Chain(line, Anchor(**dict(row)) if row else None)


async def anchors(db: Connection, tenant_id: UUID) -> dict[int, Anchor]:
    """Every anchor of a tenant's chain by the number of its block."""
    rows = await db.fetch(
        f"""SELECT {_ANCHOR} FROM audit_lineage($1) g
            JOIN audit_anchors a ON a.line = g.line AND a.block <= g.until ORDER BY a.block""",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return {row["block"]: Anchor(**dict(row)) for row in rows}


async def last_anchors(db: Connection) -> dict[UUID, Anchor]:
    """The newest anchor of every living tenant that has one."""
    newest = _LAST.format(tenant="t.id")
    rows = await db.fetch(
        f"""SELECT t.id AS tenant_id, n.* FROM tenants t CROSS JOIN LATERAL ({newest}) AS n
            WHERE t.state <> 'deleted'"""  # noqa: S608 - constants of this module
    )
    return {
        row["tenant_id"]: Anchor(**{name: row[name] for name in Anchor.__struct_fields__})
        for row in rows
    }


async def anchor(db: Connection, tenant_id: UUID, line: UUID, blocks: Sequence[Anchor]) -> None:
    """Keep these blocks of a line for good; one that is kept already stays as it was."""
    table, key = ("audit_seals", "tenant_id")
    if line != tenant_id:
        table, key = ("audit_line_seals", "line")
    await db.executemany(
        f"""INSERT INTO {table} ({key}, {_ANCHOR}) VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT ({key}, block) DO NOTHING""",  # noqa: S608 - the lines above
        [(line, *msgspec.structs.astuple(block)) for block in blocks],
    )


async def begin_line(db: Connection, database: Database, blocks: int) -> None:
    """The seals of a restored database go on from its ``blocks``, on a line of their own.

    It is the tenant's line once the database is the tenant's. Once begun it stays as it is.
    """
    await db.execute(
        """INSERT INTO audit_lines (id, tenant_id, parent_id, from_block)
           SELECT $1, t.id, coalesce(t.audit_line, t.id), $3 FROM tenants t WHERE t.id = $2
           ON CONFLICT (id) DO NOTHING""",
        database.id,
        database.tenant_id,
        blocks,
    )
    await db.execute("UPDATE databases SET audit_line = id WHERE id = $1", database.id)


async def follow_line(db: Connection, database: Database) -> None:
    """The tenant's seals go on the line of this database from now on, if it has one."""
    await db.execute(
        """UPDATE tenants t SET audit_line = d.audit_line FROM databases d
           WHERE d.id = $1 AND t.id = d.tenant_id AND d.audit_line IS NOT NULL""",
        database.id,
    )


async def remember_line(db: Connection, database: Database) -> None:
    """The line that the tenant's seals went on is that of this database, which is replaced."""
    await db.execute(
        """UPDATE databases d SET audit_line = coalesce(t.audit_line, t.id) FROM tenants t
           WHERE d.id = $1 AND t.id = d.tenant_id""",
        database.id,
    )
