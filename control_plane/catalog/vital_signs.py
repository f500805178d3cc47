"""What the catalog knows of its own health and of those who work from it."""

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Queue


class Age(msgspec.Struct, frozen=True):
    """The catalog itself: its server's version, its schema, its clock, and that it is no copy."""

    version_num: int
    revision: str | None
    now: float
    accepted: bool


class Waiting(msgspec.Struct, frozen=True):
    """A queue: operations that are held, and how long the first of the others has waited."""

    queue: Queue
    held: int
    waiting_seconds: float


async def read_age(db: Connection) -> Age:
    """Works in a catalog of any age, and in an empty database."""
    row = await db.fetchrow(
        """SELECT current_setting('server_version_num')::integer AS version_num,
                  to_regclass('alembic_version') IS NOT NULL AS migrated,
                  to_regclass('catalog_place') IS NOT NULL AS placed,
                  extract(epoch FROM clock_timestamp())::float8 AS now"""
    )
    found = dict(row or {})
    migrated, placed = found.pop("migrated"), found.pop("placed")
    revision = await db.fetchval("SELECT version_num FROM alembic_version") if migrated else None
    accepted = not placed or await db.fetchval("SELECT catalog_is_accepted()")
    return Age(revision=revision, accepted=accepted, **found)


async def read_queues(db: Connection) -> list[Waiting]:
    """Each queue, also an empty one."""
    rows = await db.fetch(
        """SELECT q.queue,
                  count(*) FILTER (WHERE o.lease_until >= clock_timestamp()) AS held,
                  coalesce(extract(epoch FROM clock_timestamp() - min(o.due_at) FILTER
                      (WHERE o.lease_until IS NULL OR o.lease_until < clock_timestamp())), 0)
                      ::float8 AS waiting_seconds
           FROM unnest('{control,transfer}'::text[]) AS q (queue)
           LEFT JOIN operations o ON o.queue = q.queue AND o.due_at <= clock_timestamp()
                AND o.state IN ('pending', 'running', 'waiting', 'cancelling')
           GROUP BY q.queue ORDER BY q.queue"""
    )
    return [Waiting(**dict(row)) for row in rows]


async def read_silence(db: Connection, *, planning: bool) -> float | None:
    """How many seconds ago periodic work last left a trace; ``None`` if nothing leaves one.

    ``planning``: backups are planned, which is such work; so is the watch over servers.
    """
    seconds: float | None = await db.fetchval(
        """SELECT extract(epoch FROM clock_timestamp() - greatest(
               (SELECT max(planned_at) FROM backup_planning WHERE $1),
               (SELECT max(checked_at) FROM servers WHERE state <> 'removed')))::float8""",
        planning,
    )
    return seconds


async def count_served(db: Connection) -> int:
    """How many tenants have a published route."""
    served: int = await db.fetchval("SELECT count(*) FROM routes WHERE state = 'published'")
    return served
