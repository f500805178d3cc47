"""The fleet in numbers, and whatever of it is not as it should be."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.backup_schedules import JOIN_POLICY
from control_plane.catalog.backup_watch import COVERED
from control_plane.catalog.operations import from_row, select_operations
from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Operation
from control_plane.domain.tenants import TenantState, Tier


class Group(msgspec.Struct, frozen=True):
    """So many living tenants of one tier are in one state."""

    state: TenantState
    tier: Tier
    tenants: int


class Overdue(msgspec.Struct, frozen=True):
    """A tenant whose policy is not kept: since ``since``, where ``allowed`` is the limit."""

    slug: str
    since: dt.datetime | None
    allowed: dt.timedelta


class Failure(msgspec.Struct, frozen=True):
    """An operation that failed and was not made good by a later one of its kind."""

    id: UUID
    kind: str
    subject: str
    tenant_id: UUID | None
    finished_at: dt.datetime
    error_message: str | None


class Silent(msgspec.Struct, frozen=True):
    """A pooler that has not been heard of since, or says that something is wrong."""

    name: str
    last_seen_at: dt.datetime
    problem: str | None


class Damaged(msgspec.Struct, frozen=True):
    """A backup that was found damaged and is no longer offered."""

    slug: str
    backup_id: UUID
    problem: str | None


async def groups(db: Connection) -> list[Group]:
    """The living tenants by state and tier."""
    rows = await db.fetch(
        """SELECT state, tier, count(*) AS tenants FROM tenants WHERE state <> 'deleted'
           GROUP BY state, tier ORDER BY state, tier"""
    )
    return [Group(**dict(row)) for row in rows]


async def running(db: Connection, limit: int) -> tuple[list[Operation], int]:
    """What runs now, the longest first, up to ``limit``; and how much there is of it."""
    count: int = await db.fetchval(
        """SELECT count(*) FROM operations
           WHERE state IN ('pending', 'running', 'waiting', 'cancelling')"""
    )
    rows = await select_operations(
        db,
        """WHERE o.state IN ('pending', 'running', 'waiting', 'cancelling')
           ORDER BY o.created_at, o.id LIMIT $1""",
        limit,
    )
    return [from_row(row) for row in rows], count


async def past_rpo(db: Connection) -> list[Overdue]:
    """The tenants whose newest backup is too old, the one that could lose most first."""
    rows = await db.fetch(
        f"""SELECT t.slug, covered.until AS since,
                   make_interval(mins => coalesce(s.rpo_minutes, p.rpo_minutes)) AS allowed
            FROM backup_turns u JOIN tenants t ON t.id = u.tenant_id {JOIN_POLICY} {COVERED}
            WHERE u.breached_at IS NOT NULL AND t.state IN ('active', 'suspended')
            ORDER BY covered.until"""  # noqa: S608 - constants
    )
    return [Overdue(**dict(row)) for row in rows]


async def undrilled(db: Connection) -> list[Overdue]:
    """The tenants of which no restore was proven for too long, the longest first.

    Most were proven lately: only for the others the ledger is searched for their last proof.
    """
    rows = await db.fetch(
        f"""WITH recent AS MATERIALIZED (
                SELECT tenant_id, max(finished_at) AS at FROM drills
                WHERE state = 'passed' AND finished_at > now() - make_interval(days =>
                      (SELECT max(drill_days) FROM (SELECT drill_days FROM backup_policies
                       UNION ALL SELECT drill_days FROM backup_schedules) limits))
                GROUP BY tenant_id),
            candidates AS MATERIALIZED (
                SELECT t.id, t.slug, t.activated_at,
                       make_interval(days => coalesce(s.drill_days, p.drill_days)) AS allowed
                FROM tenants t {JOIN_POLICY} LEFT JOIN recent r ON r.tenant_id = t.id
                WHERE t.state IN ('active', 'suspended', 'archived')
                  AND coalesce(r.at, '-infinity') < now()
                      - make_interval(days => coalesce(s.drill_days, p.drill_days)))
            SELECT c.slug, proven.at AS since, c.allowed
            FROM candidates c
            CROSS JOIN LATERAL (SELECT max(finished_at) AS at FROM drills d
                                WHERE d.tenant_id = c.id AND d.state = 'passed') proven
            WHERE coalesce(proven.at, c.activated_at) < now() - c.allowed
            ORDER BY proven.at NULLS FIRST, c.slug"""  # noqa: S608 - constants
    )
    return [Overdue(**dict(row)) for row in rows]


async def failures(db: Connection, since: dt.timedelta) -> list[Failure]:
    """What failed lately and still stands, newest first."""
    rows = await db.fetch(
        """SELECT o.id, o.kind, o.subject, o.tenant_id, o.finished_at, o.error_message
           FROM operations o LEFT JOIN tenants t ON t.id = o.tenant_id
           WHERE o.state = 'failed' AND o.finished_at > clock_timestamp() - $1::interval
             AND (t.id IS NULL OR t.state <> 'deleted')
             AND NOT EXISTS (
                 SELECT FROM operations later
                 WHERE later.tenant_id = o.tenant_id AND later.kind = o.kind
                   AND later.created_at > o.created_at AND later.state <> 'failed')
             AND NOT EXISTS (
                 SELECT FROM operations later
                 WHERE later.tenant_id IS NULL AND o.tenant_id IS NULL
                   AND later.server_id = o.server_id AND later.kind = o.kind
                   AND later.created_at > o.created_at AND later.state <> 'failed')
           ORDER BY o.finished_at DESC""",
        since,
    )
    return [Failure(**dict(row)) for row in rows]


async def late(db: Connection) -> list[Failure]:
    """What is past its deadline and not over, the longest first."""
    rows = await db.fetch(
        """SELECT id, kind, subject, tenant_id, deadline AS finished_at, NULL AS error_message
           FROM operations
           WHERE state IN ('pending', 'running', 'waiting', 'cancelling')
             AND deadline < clock_timestamp() ORDER BY deadline"""
    )
    return [Failure(**dict(row)) for row in rows]


async def silent_poolers(db: Connection, seconds: float) -> list[Silent]:
    """The poolers that have a problem or were not heard of for so long."""
    rows = await db.fetch(
        """SELECT name, last_seen_at, problem FROM poolers
           WHERE problem IS NOT NULL
              OR last_seen_at < clock_timestamp() - make_interval(secs => $1) ORDER BY name""",
        seconds,
    )
    return [Silent(**dict(row)) for row in rows]


async def damaged(db: Connection) -> list[Damaged]:
    """The backups of living tenants that were found damaged, newest first."""
    rows = await db.fetch(
        """SELECT t.slug, b.id AS backup_id, b.problem
           FROM backups b JOIN tenants t ON t.id = b.tenant_id
           WHERE b.state = 'corrupt' AND t.state <> 'deleted' ORDER BY b.created_at DESC"""
    )
    return [Damaged(**dict(row)) for row in rows]
