"""Tenants as a person looks through them: searched, filtered, in the order of their slugs."""

import datetime as dt
from typing import Any
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


# By the fields of Search: what is asked of a tenant when the field is given.
_CONDITIONS = {
    "words": "(t.slug LIKE ${place} OR lower(t.name) LIKE ${place})",
    "state": "t.state = ${place}",
    "tier": "t.tier = ${place}",
    "server": """EXISTS (SELECT FROM databases d JOIN servers s ON s.id = d.server_id
                         WHERE d.tenant_id = t.id AND d.purpose = 'primary'
                           AND s.name = ${place} AND s.state <> 'removed')""",
}
# What is told of each tenant is looked up for those of the page only.
_PAGE = """
    WITH found AS MATERIALIZED (
        SELECT t.id, t.slug, t.name, t.tier, t.state FROM tenants t
        WHERE {matching} ORDER BY t.slug, t.id LIMIT {limit}
    )
    SELECT f.*, s.name AS server, d.schema_revision, o.id AS operation_id,
           o.kind AS operation_kind, newest.snapshot_at, newest.stored_bytes,
           proven.finished_at AS verified_at, u.breached_at IS NOT NULL AS breached
    FROM found f
    LEFT JOIN databases d ON d.tenant_id = f.id AND d.purpose = 'primary'
    LEFT JOIN servers s ON s.id = d.server_id
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
"""


async def page(
    db: Connection, where: Search, *, after: UUID | None, limit: int
) -> list[ListedTenant]:
    """Up to ``limit`` tenants by slug, beginning after the tenant ``after``."""
    matching, values = _matching(where)
    if after is not None:
        position = await db.fetchrow("SELECT slug, id FROM tenants WHERE id = $1", after)
        if position is not None:
            values += [position["slug"], position["id"]]
            matching += f" AND (t.slug, t.id) > (${len(values) - 1}, ${len(values)})"
    statement = _PAGE.format(matching=matching, limit=int(limit))
    return [ListedTenant(**dict(row)) for row in await db.fetch(statement, *values)]


async def count(db: Connection, where: Search) -> int:
    """How many tenants there are of this kind."""
    matching, values = _matching(where)
    found: int = await db.fetchval(
        f"SELECT count(*) FROM tenants t WHERE {matching}",  # noqa: S608 - constants of this module
        *values,
    )
    return found


def _matching(where: Search) -> tuple[str, list[Any]]:
    """The conditions of the fields that are given, and their values: each has a plan that fits."""
    conditions = [] if where.state else ["t.state <> 'deleted'"]
    values: list[Any] = []
    for field, condition in _CONDITIONS.items():
        value = getattr(where, field)
        if value:
            values.append(_pattern(value) if field == "words" else value)
            conditions.append(condition.format(place=len(values)))
    return " AND ".join(conditions), values


def _pattern(words: str) -> str:
    """What was typed, anywhere in the text; its own wildcards are plain characters."""
    plain = words.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{plain}%"
