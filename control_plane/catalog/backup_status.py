"""How well each tenant is protected right now: one row per tenant, judged by its own policy."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.backup_schedules import JOIN_POLICY
from control_plane.catalog.backup_watch import COVERED
from control_plane.catalog.pool import Connection
from control_plane.domain.backups import BackupState
from control_plane.domain.schedules import PolicySource
from control_plane.domain.tenants import TenantState, Tier


class BackupStatus(msgspec.Struct, frozen=True):
    """One tenant on the catalog's clock.

    What would be lost now is ``rpo_seconds``; ``None`` for a tenant that is not served. The drill
    is the newest one that passed: ``rto_seconds`` is what it took to have the data back.
    ``latest_…`` is about the newest attempt at a backup, however it went.
    """

    slug: str
    tier: Tier
    state: TenantState
    policy: PolicySource
    backup_id: UUID | None
    snapshot_at: dt.datetime | None
    stored_bytes: int | None
    rpo_seconds: float | None
    rpo_minutes: int
    rpo_breached: bool
    drill_id: UUID | None
    verified_at: dt.datetime | None
    verified_seconds: float | None
    rto_seconds: float | None
    drill_days: int
    drill_overdue: bool
    latest_id: UUID | None
    latest_state: BackupState | None
    latest_problem: str | None


# Only a tenant that is served can lose anything; an archived one is its backup, which has to be
# proven all the same. Without a filter on the judgement, only the tenants of the page are judged.
_PAGE = f"""
WITH asked AS (
    SELECT t.id, t.slug, t.tier, t.state, t.activated_at FROM tenants t
    WHERE t.state IN ('active', 'suspended', 'archived', 'deleting')
      AND ($1::text IS NULL OR t.slug > $1)
    ORDER BY t.slug LIMIT CASE WHEN $3::boolean IS NULL THEN $2::bigint END
), measured AS (
    SELECT t.slug, t.tier, t.state,
           CASE WHEN s.tenant_id IS NULL THEN 'tier' ELSE 'tenant' END AS policy,
           kept.id AS backup_id, kept.snapshot_at, kept.stored_bytes,
           CASE WHEN t.state IN ('active', 'suspended')
                THEN extract(epoch FROM now.at - covered.until)::float8 END AS rpo_seconds,
           coalesce(s.rpo_minutes, p.rpo_minutes) AS rpo_minutes,
           drill.id AS drill_id, drill.finished_at AS verified_at,
           extract(epoch FROM now.at - drill.finished_at)::float8 AS verified_seconds,
           drill.download_seconds + drill.load_seconds AS rto_seconds,
           coalesce(s.drill_days, p.drill_days) AS drill_days,
           extract(epoch FROM now.at - coalesce(drill.finished_at, t.activated_at)) / 86400
               AS unproven_days,
           latest.id AS latest_id, latest.state AS latest_state, latest.problem AS latest_problem
    FROM (SELECT clock_timestamp() AS at) now CROSS JOIN asked t {JOIN_POLICY} {COVERED}
    LEFT JOIN LATERAL (
        SELECT b.id, b.snapshot_at, b.stored_bytes FROM backups b
        WHERE b.tenant_id = t.id AND b.state = 'complete'
        ORDER BY b.snapshot_at DESC, b.id DESC LIMIT 1) kept ON true
    LEFT JOIN LATERAL (
        SELECT r.id, r.finished_at, r.download_seconds, r.load_seconds FROM drills r
        WHERE r.tenant_id = t.id AND r.state = 'passed'
        ORDER BY r.finished_at DESC LIMIT 1) drill ON true
    LEFT JOIN LATERAL (
        SELECT b.id, b.state, b.problem FROM backups b WHERE b.tenant_id = t.id
        ORDER BY b.created_at DESC, b.id DESC LIMIT 1) latest ON true
), judged AS (
    SELECT *, coalesce(rpo_seconds > rpo_minutes * 60.0, false) AS rpo_breached,
           state <> 'deleting' AND unproven_days > drill_days AS drill_overdue
    FROM measured
)
SELECT {", ".join(BackupStatus.__struct_fields__)} FROM judged
WHERE $3::boolean IS NULL OR (rpo_breached OR drill_overdue) = $3
ORDER BY slug LIMIT $2
"""  # noqa: S608 - constants and the struct's own field names


async def page(
    db: Connection, *, after: str | None, limit: int, breached: bool | None
) -> list[BackupStatus]:
    """Up to ``limit`` tenants by slug, beginning after the slug ``after``.

    ``breached`` asks only for those whose policy is not kept, or only for the others.
    """
    rows = await db.fetch(_PAGE, after, limit, breached)
    return [BackupStatus(**dict(row)) for row in rows]
