"""Who disturbs its neighbours, from the first look that saw it to the end of it."""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.noise import Evidence, Level, Sufferer, Verdict

_LOOKS_TO_ANNOUNCE = 2


class Disturbance(msgspec.Struct, frozen=True):
    """One tenant that uses more than its share, as last seen.

    It is announced once two looks in a row saw it, and has ended when none did for a while.
    """

    id: UUID
    tenant_id: UUID
    slug: str
    server: str
    level: Level
    verdict: str
    evidence: list[Evidence]
    sufferers: list[Sufferer]
    began_at: dt.datetime
    seen_at: dt.datetime
    announced_at: dt.datetime | None
    ended_at: dt.datetime | None


_SELECT = """
    SELECT n.id, n.tenant_id, t.slug, s.name AS server, n.level, n.verdict, n.evidence,
           n.sufferers, n.began_at, n.seen_at, n.announced_at, n.ended_at
      FROM disturbances n JOIN tenants t ON t.id = n.tenant_id JOIN servers s ON s.id = n.server_id
"""


async def see(
    db: Connection, disturbance_id: UUID, server_id: UUID, found: Verdict, *, apart: float
) -> Disturbance | None:
    """Note what a look saw; the disturbance, if it is to be announced by this very look.

    Looks less than ``apart`` seconds after another are one.
    """
    await db.execute(
        """INSERT INTO disturbances AS n (id, tenant_id, server_id, level, verdict, evidence,
                                          sufferers)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT (tenant_id, server_id) WHERE ended_at IS NULL DO UPDATE
              SET looks = n.looks + 1, seen_at = clock_timestamp(), level = excluded.level,
                  verdict = excluded.verdict, evidence = excluded.evidence,
                  sufferers = excluded.sufferers
            WHERE n.seen_at < clock_timestamp() - make_interval(secs => $8)""",
        disturbance_id,
        found.tenant_id,
        server_id,
        found.level,
        found.words,
        msgspec.to_builtins(found.evidence),
        msgspec.to_builtins(found.sufferers),
        apart,
    )
    announced = await db.fetchval(
        """UPDATE disturbances SET announced_at = clock_timestamp()
           WHERE tenant_id = $1 AND server_id = $2 AND ended_at IS NULL AND announced_at IS NULL
             AND looks >= $3 RETURNING id""",
        found.tenant_id,
        server_id,
        _LOOKS_TO_ANNOUNCE,
    )
    return await _get(db, announced) if announced is not None else None


async def end_unseen(db: Connection, server_id: UUID, seconds: float) -> list[Disturbance]:
    """End what no look saw for so long; those of them that had been announced."""
    await db.execute(
        """DELETE FROM disturbances WHERE server_id = $1 AND announced_at IS NULL
              AND seen_at < clock_timestamp() - make_interval(secs => $2)""",
        server_id,
        seconds,
    )
    rows = await db.fetch(
        """UPDATE disturbances SET ended_at = clock_timestamp()
           WHERE server_id = $1 AND ended_at IS NULL
             AND seen_at < clock_timestamp() - make_interval(secs => $2) RETURNING id""",
        server_id,
        seconds,
    )
    return [await _get(db, row["id"]) for row in rows]


async def open_ones(db: Connection) -> list[Disturbance]:
    """Announced and not over, the oldest first."""
    rows = await db.fetch(
        _SELECT + " WHERE n.ended_at IS NULL AND n.announced_at IS NOT NULL ORDER BY n.began_at"
    )
    return [_disturbance(dict(row)) for row in rows]


async def open_one(db: Connection, tenant_id: UUID) -> Disturbance | None:
    """The tenant's, if it is announced and not over."""
    row = await db.fetchrow(
        _SELECT
        + """ WHERE n.tenant_id = $1 AND n.ended_at IS NULL AND n.announced_at IS NOT NULL
              ORDER BY n.began_at DESC LIMIT 1""",
        tenant_id,
    )
    return _disturbance(dict(row)) if row else None


async def neighbours(db: Connection, server_id: UUID) -> Sequence[tuple[UUID, str, str | None]]:
    """(id, slug, what kind of our own work is under way) of every tenant of a server.

    Work that ended less than two minutes ago still shows in what was used.
    """
    rows = await db.fetch(
        """SELECT t.id, t.slug,
                  (SELECT o.kind FROM operations o
                    WHERE o.tenant_id = t.id AND o.queue = 'transfer'
                      AND (o.state IN ('pending', 'running', 'waiting', 'cancelling')
                           OR o.finished_at > clock_timestamp() - interval '2 minutes')
                    ORDER BY o.created_at DESC LIMIT 1) AS ours
             FROM databases d JOIN tenants t ON t.id = d.tenant_id
            WHERE d.server_id = $1 AND d.purpose = 'primary'""",
        server_id,
    )
    return [(row["id"], row["slug"], row["ours"]) for row in rows]


async def _get(db: Connection, disturbance_id: UUID) -> Disturbance:
    row = await db.fetchrow(_SELECT + " WHERE n.id = $1", disturbance_id)
    assert row is not None  # noqa: S101 - written by the caller, in its transaction
    return _disturbance(dict(row))


def _disturbance(values: dict[str, object]) -> Disturbance:
    return msgspec.convert(values, Disturbance)
