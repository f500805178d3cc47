"""Tenants as a person looks through them: searched, filtered, in the order of their slugs."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.tenants import TenantState, Tier


class ListedTenant(msgspec.Struct, frozen=True):
    """One line of the list. ``breached``: its newest backup is older than its policy allows."""

    id: UUID
    slug: str
    name: str
    tier: Tier
    state: TenantState
    server: str | None
    schema_revision: str | None
    operation_id: UUID | None
    operation_kind: str | None
    snapshot_at: dt.datetime | None
    stored_bytes: int | None
    verified_at: dt.datetime | None
    breached: bool


class Search(msgspec.Struct, frozen=True):
    """Which tenants. ``words`` is looked for in slugs and names; deleted ones only by ``state``."""

    words: str | None = None
    state: str | None = None
    tier: str | None = None
    server: str | None = None


_MATCHING = """
    FROM tenants t
    LEFT JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
    LEFT JOIN servers s ON s.id = d.server_id
    WHERE (CASE WHEN $2::text IS NULL THEN t.state <> 'deleted' ELSE t.state = $2 END)
      AND ($3::text IS NULL OR t.tier = $3)
      AND ($4::text IS NULL OR s.name = $4)
      AND ($1::text IS NULL OR t.slug LIKE $1 OR lower(t.name) LIKE $1)
"""
# What is told of each tenant is looked up for those of the page only.
_PAGE = f"""
    WITH found AS (
        SELECT t.id, t.slug, t.name, t.tier, t.state, s.name AS server, d.schema_revision
        {_MATCHING}
          AND ($5::uuid IS NULL OR (t.slug, t.id) >
               (SELECT x.slug, x.id FROM tenants x WHERE x.id = $5))
        ORDER BY t.slug, t.id LIMIT $6
    )
    SELECT f.*, o.id AS operation_id, o.kind AS operation_kind, newest.snapshot_at,
           newest.stored_bytes, proven.finished_at AS verified_at,
           u.breached_at IS NOT NULL AS breached
    FROM found f
    LEFT JOIN operations o ON o.tenant_id = f.id
         AND o.state IN ('pending', 'running', 'waiting', 'cancelling')
    LEFT JOIN backup_turns u ON u.tenant_id = f.id
    LEFT JOIN LATERAL (SELECT b.snapshot_at, b.stored_bytes FROM backups b
                       WHERE b.tenant_id = f.id AND b.state = 'complete'
                       ORDER BY b.snapshot_at DESC LIMIT 1) newest ON true
    LEFT JOIN LATERAL (SELECT r.finished_at FROM drills r
                       WHERE r.tenant_id = f.id AND r.state = 'passed'
                       ORDER BY r.finished_at DESC LIMIT 1) proven ON true
    ORDER BY f.slug, f.id
"""  # noqa: S608 - constants of this module


async def page(
    db: Connection, where: Search, *, after: UUID | None, limit: int
) -> list[ListedTenant]:
    """Up to ``limit`` tenants by slug, beginning after the tenant ``after``."""
    rows = await db.fetch(_PAGE, *_filter(where), after, limit)
    return [ListedTenant(**dict(row)) for row in rows]


async def count(db: Connection, where: Search) -> int:
    """How many tenants there are of this kind."""
    found: int = await db.fetchval("SELECT count(*) " + _MATCHING, *_filter(where))
    return found


def _filter(where: Search) -> tuple[str | None, str | None, str | None, str | None]:
    return _pattern(where.words), where.state, where.tier, where.server


def _pattern(words: str | None) -> str | None:
    """What was typed, anywhere in the text; its own wildcards are plain characters."""
    if not words:
        return None
    plain = words.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{plain}%"
