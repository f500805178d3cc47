"""What is watched about backups: RPO, the age of the last proof, the figures of the fleet."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.backup_schedules import EFFECTIVE, JOIN_POLICY, policy_of
from control_plane.catalog.catalog_life import read_life
from control_plane.catalog.pool import Connection
from control_plane.domain.backups import BackupState, DrillCause
from control_plane.domain.schedules import Policy
from control_plane.domain.tenants import Tier

# Up to when the data of tenant t are in a backup. A database that was made from a backup held
# nothing else at first; before its first backup, a tenant is judged from its beginning.
COVERED = """
    LEFT JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
    LEFT JOIN LATERAL (SELECT b.snapshot_at FROM backups b
                       WHERE b.tenant_id = t.id AND b.state = 'complete'
                       ORDER BY b.snapshot_at DESC LIMIT 1) newest ON true
    CROSS JOIN LATERAL (SELECT greatest(
        newest.snapshot_at,
        CASE WHEN d.backup_id IS NOT NULL THEN d.created_at END,
        CASE WHEN newest.snapshot_at IS NULL THEN t.activated_at END) AS until) covered
"""
PROVEN = """
    LEFT JOIN LATERAL (SELECT r.finished_at FROM drills r
                       WHERE r.tenant_id = t.id AND r.state = 'passed'
                       ORDER BY r.finished_at DESC LIMIT 1) proven ON true
"""


class Watched(msgspec.Struct, frozen=True):
    """A tenant that is backed up by schedule, as far as its RPO is concerned."""

    tenant_id: UUID
    slug: str
    policy: Policy
    covered_until: dt.datetime
    breached_at: dt.datetime | None


class Proof(msgspec.Struct, frozen=True):
    """The newest restore of a tenant that was compared and found equal."""

    backup_id: UUID
    cause: DrillCause
    started_at: dt.datetime
    finished_at: dt.datetime


class DrillRules(msgspec.Struct, frozen=True):
    """How many drills may run, and when one is due.

    After ``share`` of the time that a tenant may go without a proof; the first one
    ``first_after`` its first backup.
    """

    at_once: int
    per_server: int
    share: float
    first_after: dt.timedelta


class TierFigures(msgspec.Struct, frozen=True):
    """One tier: ages in seconds, ``None`` while there is nothing to be old."""

    tier: Tier
    tenants: int
    breached: int
    waiting: int
    undrilled: int
    oldest_backup: float | None
    oldest_drill: float | None


class Figures(msgspec.Struct, frozen=True):
    """The fleet's backups in numbers.

    ``planned`` is how long ago somebody planned, ``catalog`` how old the catalog's own backup is.
    """

    backups: dict[BackupState, int]
    tiers: list[TierFigures]
    planned: float
    catalog: float


async def watched(db: Connection, tenant_id: UUID | None = None) -> list[Watched]:
    """The tenants with a turn whose RPO is watched; or this one, if it is."""
    rows = await db.fetch(
        f"""SELECT t.id, t.slug, {EFFECTIVE}, covered.until, u.breached_at
            FROM backup_turns u JOIN tenants t ON t.id = u.tenant_id {JOIN_POLICY} {COVERED}
            WHERE t.state IN ('active', 'suspended')
              AND ($1::uuid IS NULL OR t.id = $1)""",  # noqa: S608 - constants and the struct's own field names
        tenant_id,
    )
    return [
        Watched(row["id"], row["slug"], policy_of(row), row["until"], row["breached_at"])
        for row in rows
    ]


async def mark_breached(db: Connection, tenant_id: UUID, now: dt.datetime) -> bool:
    """The breach is noticed; whether it was not yet."""
    return bool(
        await db.fetchval(
            """UPDATE backup_turns SET breached_at = $2
               WHERE tenant_id = $1 AND breached_at IS NULL RETURNING true""",
            tenant_id,
            now,
        )
    )


async def mark_mended(db: Connection, tenant_id: UUID) -> bool:
    """The breach is over; whether there was one."""
    return bool(
        await db.fetchval(
            """UPDATE backup_turns SET breached_at = NULL
               WHERE tenant_id = $1 AND breached_at IS NOT NULL RETURNING true""",
            tenant_id,
        )
    )


async def newest_proof(db: Connection, tenant_id: UUID) -> Proof | None:
    """The last drill of a tenant that passed."""
    row = await db.fetchrow(
        """SELECT backup_id, cause, started_at, finished_at FROM drills
           WHERE tenant_id = $1 AND state = 'passed' ORDER BY finished_at DESC LIMIT 1""",
        tenant_id,
    )
    return Proof(**dict(row)) if row else None


_DRILLS_DUE = (
    """
    WITH busy AS (
        SELECT d.server_id, count(*) AS running FROM operations o
          LEFT JOIN databases d ON d.tenant_id = o.tenant_id AND d.purpose = 'primary'
         WHERE o.kind = 'verify_backup'
           AND o.state IN ('pending', 'running', 'waiting', 'cancelling')
         GROUP BY d.server_id
    ), waiting AS (
        SELECT candidate.id, d.server_id, proven.finished_at, t.id AS tenant_id
          FROM backup_turns u
          JOIN tenants t ON t.id = u.tenant_id AND t.state IN ('active', 'suspended', 'archived')
          JOIN backup_policies p ON p.tier = t.tier
          LEFT JOIN backup_schedules s ON s.tenant_id = t.id
          LEFT JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
          LEFT JOIN servers v ON v.id = d.server_id
         CROSS JOIN LATERAL (SELECT b.id FROM backups b
                             WHERE b.tenant_id = t.id AND b.state = 'complete'
                             ORDER BY coalesce(b.id = t.archive_backup_id, false) DESC,
                                      b.snapshot_at DESC LIMIT 1) candidate
    """  # noqa: S608 - constants of this module
    + PROVEN
    + """
         WHERE (u.drill_after IS NULL OR u.drill_after <= $1)
           AND (v.id IS NULL OR v.reachable)
           AND coalesce(
                   proven.finished_at
                   + make_interval(secs => $4::float8 * 86400
                                           * coalesce(s.drill_days, p.drill_days)),
                   (SELECT min(b.finished_at) FROM backups b WHERE b.tenant_id = t.id
                    AND b.state IN ('complete', 'corrupt', 'pruned')) + $5::interval) < $1
           AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                           AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
    ), ordered AS (
        SELECT *, row_number() OVER (PARTITION BY server_id
                                     ORDER BY finished_at NULLS FIRST, tenant_id) AS place
          FROM waiting
    )
    SELECT o.id FROM ordered o LEFT JOIN busy b ON b.server_id IS NOT DISTINCT FROM o.server_id
     WHERE o.place <= $3 - coalesce(b.running, 0)
     ORDER BY o.finished_at NULLS FIRST, o.tenant_id
     LIMIT greatest(0, $2 - (SELECT coalesce(sum(running), 0) FROM busy))
    """
)


async def drills_due(db: Connection, now: dt.datetime, rules: DrillRules) -> list[UUID]:
    """The backups to prove now: of the tenants whose last proof is oldest, or that have none."""
    rows = await db.fetch(
        _DRILLS_DUE, now, rules.at_once, rules.per_server, rules.share, rules.first_after
    )
    return [row["id"] for row in rows]


async def pause_drills(db: Connection, tenant_id: UUID, until: dt.datetime) -> None:
    """No drill of this tenant begins before then."""
    await db.execute(
        "UPDATE backup_turns SET drill_after = $2 WHERE tenant_id = $1", tenant_id, until
    )


async def figures(db: Connection) -> Figures:
    """The fleet's backups in numbers, on the catalog's clock."""
    states = await db.fetch("SELECT state, count(*) AS backups FROM backups GROUP BY state")
    tiers = await db.fetch(
        f"""SELECT p.tier, count(t.id) AS tenants,
                   count(u.breached_at) AS breached,
                   count(*) FILTER (WHERE u.due_at <= clock_timestamp()) AS waiting,
                   count(t.id) FILTER (WHERE proven.finished_at IS NULL) AS undrilled,
                   extract(epoch FROM clock_timestamp() - min(newest.snapshot_at))::float8
                       AS oldest_backup,
                   extract(epoch FROM clock_timestamp() - min(proven.finished_at))::float8
                       AS oldest_drill
            FROM backup_policies p
            LEFT JOIN tenants t ON t.tier = p.tier AND t.state IN ('active', 'suspended')
            LEFT JOIN backup_turns u ON u.tenant_id = t.id
            {COVERED} {PROVEN}
            GROUP BY p.tier ORDER BY p.tier"""  # noqa: S608 - constants of this module
    )
    planned = await db.fetchval(
        """SELECT extract(epoch FROM clock_timestamp() - planned_at)::float8
           FROM backup_planning"""
    )
    return Figures(
        {row["state"]: row["backups"] for row in states},
        [TierFigures(**dict(row)) for row in tiers],
        planned or 0.0,
        (await read_life(db)).age_seconds,
    )
