"""How rollouts stand, for people: how far, how fast, and what went wrong."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection


class Totals(msgspec.Struct, frozen=True):
    """How many tenants of a rollout there are, are done, and have failed."""

    rollout_id: UUID
    tenants: int
    done: int
    failed: int


class Failures(msgspec.Struct, frozen=True):
    """Tenants of a rollout that failed alike; ``message`` and ``sample`` are of the first ones."""

    code: str
    tenants: int
    message: str
    sample: list[str]


class Pace(msgspec.Struct, frozen=True):
    """Tenants done in the latest minute of work, and the seconds from the first to the last."""

    done: int
    seconds: float


async def totals(db: Connection, rollout_ids: Sequence[UUID]) -> dict[UUID, Totals]:
    """How far each of these rollouts has come; those without a tenant are left out."""
    rows = await db.fetch(
        """SELECT rollout_id, count(*) AS tenants, count(*) FILTER (WHERE state = 'done') AS done,
                  count(*) FILTER (WHERE state = 'failed') AS failed
           FROM rollout_targets WHERE rollout_id = ANY ($1) GROUP BY rollout_id""",
        list(rollout_ids),
    )
    return {row["rollout_id"]: Totals(**dict(row)) for row in rows}


async def failures(db: Connection, rollout_id: UUID, most: int = 5) -> list[Failures]:
    """Failed tenants by the code of their error, the most frequent first, with ``most`` slugs."""
    rows = await db.fetch(
        """SELECT coalesce(r.error_code, 'error') AS code, count(*) AS tenants,
                  coalesce((array_agg(r.error_message ORDER BY r.wave, r.position))[1], '')
                      AS message,
                  (array_agg(t.slug ORDER BY r.wave, r.position))[1:$2] AS sample
           FROM rollout_targets r JOIN tenants t ON t.id = r.tenant_id
           WHERE r.rollout_id = $1 AND r.state = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1""",
        rollout_id,
        most,
    )
    return [Failures(**dict(row)) for row in rows]


async def pace(db: Connection, rollout_id: UUID) -> Pace:
    """How fast it went lately; time in which the rollout stood still is hardly in it."""
    row = await db.fetchrow(
        """WITH done AS (
               SELECT started_at, finished_at FROM rollout_targets
               WHERE rollout_id = $1 AND state = 'done' AND started_at IS NOT NULL),
           lately AS (
               SELECT * FROM done
               WHERE finished_at > (SELECT max(finished_at) FROM done) - interval '1 minute')
           SELECT count(*) AS done,
                  coalesce(extract(epoch FROM max(finished_at) - min(started_at)), 0)::float8
                      AS seconds
           FROM lately""",
        rollout_id,
    )
    return Pace(**dict(row)) if row else Pace(0, 0.0)
