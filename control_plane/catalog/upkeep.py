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


async def last_anchor(db: Connection, tenant_id: UUID) -> Anchor | None:
    """The newest anchor of a tenant, ``None`` while nothing was sealed."""
    row = await db.fetchrow(
        f"SELECT {_ANCHOR} FROM audit_seals WHERE tenant_id = $1 ORDER BY block DESC LIMIT 1",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return Anchor(**dict(row)) if row else None


async def anchors(db: Connection, tenant_id: UUID) -> dict[int, Anchor]:
    """Every anchor of a tenant by the number of its block."""
    rows = await db.fetch(
        f"SELECT {_ANCHOR} FROM audit_seals WHERE tenant_id = $1 ORDER BY block",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return {row["block"]: Anchor(**dict(row)) for row in rows}


async def last_anchors(db: Connection) -> dict[UUID, Anchor]:
    """The newest anchor of every living tenant that has one."""
    rows = await db.fetch(
        f"""SELECT t.id AS tenant_id, a.* FROM tenants t
            CROSS JOIN LATERAL (SELECT {_ANCHOR} FROM audit_seals WHERE tenant_id = t.id
                                ORDER BY block DESC LIMIT 1) AS a
            WHERE t.state <> 'deleted'"""  # noqa: S608 - the struct's own field names
    )
    return {
        row["tenant_id"]: Anchor(**{name: row[name] for name in Anchor.__struct_fields__})
        for row in rows
    }


async def anchor(db: Connection, tenant_id: UUID, blocks: Sequence[Anchor]) -> None:
    """Keep these blocks for good; one that is kept already stays as it was."""
    await db.executemany(
        """INSERT INTO audit_seals (tenant_id, block, first_seq, last_seq, rows, block_hash,
                                    sealed_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, block) DO NOTHING""",
        [(tenant_id, *msgspec.structs.astuple(block)) for block in blocks],
    )
