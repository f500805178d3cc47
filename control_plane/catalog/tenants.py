"""Tenants in the catalog."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection, Record
from control_plane.domain.errors import NotFound, WrongState
from control_plane.domain.names import parse
from control_plane.domain.tenants import OwnLimits, Tenant, TenantState, Tier

_SELECT = """
    SELECT t.id, t.slug, t.name, t.tier, t.region, t.labels, t.state, s.name AS server,
           t.template, d.schema_revision, t.placement_reason, c.name AS cell, t.created_at,
           t.activated_at, t.legal_hold IS NOT NULL AS legal_hold, t.delete_after, t.shred_after,
           o.id AS operation_id, o.kind AS operation_kind,
           (SELECT to_jsonb(l) FROM tenant_limits l WHERE l.tenant_id = t.id) AS own_limits
    FROM tenants t
    JOIN cells c ON c.id = t.cell_id
    LEFT JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
    LEFT JOIN servers s ON s.id = d.server_id
    LEFT JOIN operations o ON o.tenant_id = t.id
         AND o.state IN ('pending', 'running', 'waiting', 'cancelling')
"""


class NewRow(msgspec.Struct, frozen=True):
    """A tenant about to be recorded."""

    id: UUID
    slug: str
    name: str
    tier: Tier
    template: str
    region: str | None
    labels: dict[str, str]
    cell_id: UUID
    placement_reason: str


async def insert(db: Connection, row: NewRow) -> None:
    """Record a new tenant in state ``provisioning``."""
    await db.execute(
        """INSERT INTO tenants (id, slug, name, tier, template, region, labels, cell_id,
                                placement_reason)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
        row.id,
        row.slug,
        row.name,
        row.tier,
        row.template,
        row.region,
        row.labels,
        row.cell_id,
        row.placement_reason,
    )


async def find(db: Connection, slug_or_id: str) -> Tenant:
    """The tenant with this slug (a living one) or this ``tn_`` id.

    Raises:
        NotFound: there is none.
    """
    key = parse("tn", slug_or_id)
    if key is not None:
        row = await db.fetchrow(_SELECT + " WHERE t.id = $1", key)
    else:
        row = await db.fetchrow(_SELECT + " WHERE t.slug = $1 AND t.state <> 'deleted'", slug_or_id)
    if row is None:
        raise NotFound(f"there is no tenant {slug_or_id!r}")
    return _tenant(row)


async def get(db: Connection, tenant_id: UUID) -> Tenant:
    """The tenant with this id, in whatever state.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(_SELECT + " WHERE t.id = $1", tenant_id)
    if row is None:
        raise NotFound("there is no such tenant")
    return _tenant(row)


async def lock(db: Connection, tenant_id: UUID) -> Tenant:
    """The tenant, with its row held until the transaction ends: no operation on it can begin.

    Raises:
        NotFound: there is none.
    """
    await db.execute("SELECT FROM tenants WHERE id = $1 FOR UPDATE", tenant_id)
    return await get(db, tenant_id)


async def cell_id(db: Connection, tenant_id: UUID) -> UUID:
    """The cell whose poolers serve the tenant, for life."""
    cell: UUID = await db.fetchval("SELECT cell_id FROM tenants WHERE id = $1", tenant_id)
    return cell


async def slug_is_taken(db: Connection, slug: str) -> bool:
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM tenants WHERE slug = $1 AND state <> 'deleted')", slug
        )
    )


class Filter(msgspec.Struct, frozen=True):
    """Which tenants to list; deleted ones only when ``state`` asks for them.

    ``prefix`` is how the slug begins.
    """

    state: str | None = None
    tier: str | None = None
    server: str | None = None
    only: UUID | None = None
    prefix: str | None = None


_PAGE = (
    _SELECT  # noqa: S608 - constants of this module
    + """
    WHERE ($1::uuid IS NULL
           OR (t.created_at, t.id) > (SELECT x.created_at, x.id FROM tenants x WHERE x.id = $1))
      AND (CASE WHEN $3::text IS NULL THEN t.state <> 'deleted' ELSE t.state = $3 END)
      AND ($4::text IS NULL OR t.tier = $4)
      AND ($5::text IS NULL OR s.name = $5)
      AND ($6::uuid IS NULL OR t.id = $6)
      AND ($7::text IS NULL OR starts_with(t.slug, $7))
    ORDER BY t.created_at, t.id LIMIT $2
"""
)


async def page(db: Connection, *, after: UUID | None, limit: int, where: Filter) -> list[Tenant]:
    """Up to ``limit`` tenants, oldest first, beginning after the tenant ``after``."""
    rows: Sequence[Record] = await db.fetch(
        _PAGE, after, limit, where.state, where.tier, where.server, where.only, where.prefix
    )
    return [_tenant(row) for row in rows]


async def change_state(
    db: Connection, tenant_id: UUID, *, expected: TenantState, wanted: TenantState
) -> None:
    """Compare-and-set; doing it twice is harmless.

    Raises:
        WrongState: the tenant is in neither state.
    """
    state = await db.fetchval(
        """WITH changed AS (
               UPDATE tenants SET state = $3, activated_at = CASE WHEN $3 = 'active'
                      THEN coalesce(activated_at, clock_timestamp()) ELSE activated_at END
               WHERE id = $1 AND state = $2 RETURNING state)
           SELECT coalesce((SELECT state FROM changed),
                           (SELECT state FROM tenants WHERE id = $1))""",
        tenant_id,
        expected,
        wanted,
    )
    if state != wanted:
        raise WrongState(f"the tenant is {state}, not {expected}")


async def record_placement(db: Connection, tenant_id: UUID, reason: str) -> None:
    """Why the tenant is where it is, or will be."""
    await db.execute("UPDATE tenants SET placement_reason = $2 WHERE id = $1", tenant_id, reason)


def _tenant(row: Record) -> Tenant:
    values = dict(row)
    own = values.pop("own_limits")
    return Tenant(**values, own_limits=msgspec.convert(own, OwnLimits) if own else None)
