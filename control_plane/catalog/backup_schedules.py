"""Policies in the catalog: when and how long, for a tier and for a tenant that differs from it."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection, Record
from control_plane.domain.errors import NotFound
from control_plane.domain.schedules import Policy, PolicySource
from control_plane.domain.tenants import Tier

FIELDS = Policy.__struct_fields__
# For a query about tenants t: the policy of each, its own or that of its tier.
EFFECTIVE = ", ".join(f"coalesce(s.{name}, p.{name}) AS {name}" for name in FIELDS)
JOIN_POLICY = """
    JOIN backup_policies p ON p.tier = t.tier
    LEFT JOIN backup_schedules s ON s.tenant_id = t.id
"""
_NAMES = ", ".join(FIELDS)
_PLACES = ", ".join(f"${place}" for place in range(3, 3 + len(FIELDS)))
_EXCLUDED = ", ".join(f"{name} = excluded.{name}" for name in (*FIELDS, "changed_by"))


class Schedule(msgspec.Struct, frozen=True):
    """A policy as recorded: whether it is the tenant's own, who set it and when."""

    source: PolicySource
    policy: Policy
    changed_by: str
    changed_at: dt.datetime


def policy_of(row: Record) -> Policy:
    """The policy in a row that has its columns."""
    return Policy(**{name: row[name] for name in FIELDS})


async def of_tier(db: Connection, tier: Tier) -> Schedule:
    """The policy of a tier, which tenants without their own follow."""
    for name, schedule in (await of_tiers(db)).items():
        if name == tier:
            return schedule
    raise NotFound(f"there is no policy of tier {tier}")


async def of_tiers(db: Connection) -> dict[Tier, Schedule]:
    """The policies of all tiers."""
    rows = await db.fetch(f"SELECT tier, {_NAMES}, changed_by, changed_at FROM backup_policies")  # noqa: S608 - the struct's own field names
    return {
        row["tier"]: Schedule("tier", policy_of(row), row["changed_by"], row["changed_at"])
        for row in rows
    }


async def of_tenant(db: Connection, tenant_id: UUID) -> Schedule:
    """The policy a tenant follows.

    Raises:
        NotFound: there is no such tenant.
    """
    row = await db.fetchrow(
        f"""SELECT s.tenant_id IS NOT NULL AS own, {EFFECTIVE},
                   coalesce(s.changed_by, p.changed_by) AS changed_by,
                   coalesce(s.changed_at, p.changed_at) AS changed_at
            FROM tenants t {JOIN_POLICY} WHERE t.id = $1""",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    if row is None:
        raise NotFound("there is no such tenant")
    source: PolicySource = "tenant" if row["own"] else "tier"
    return Schedule(source, policy_of(row), row["changed_by"], row["changed_at"])


async def put(db: Connection, tenant_id: UUID, policy: Policy, by: str) -> None:
    """The tenant follows this policy, whatever its tier does."""
    await db.execute(
        f"""INSERT INTO backup_schedules (tenant_id, changed_by, {_NAMES})
            VALUES ($1, $2, {_PLACES})
            ON CONFLICT (tenant_id) DO UPDATE
            SET {_EXCLUDED}, changed_at = clock_timestamp()""",  # noqa: S608 - the struct's own field names
        tenant_id,
        by,
        *msgspec.structs.astuple(policy),
    )


async def clear(db: Connection, tenant_id: UUID) -> bool:
    """The tenant follows its tier again; whether it had a policy of its own."""
    cleared = await db.fetchval(
        "DELETE FROM backup_schedules WHERE tenant_id = $1 RETURNING true", tenant_id
    )
    return bool(cleared)


async def put_tier(db: Connection, tier: Tier, policy: Policy, by: str) -> None:
    """Every tenant of the tier that has no policy of its own follows this one."""
    await db.execute(
        f"""INSERT INTO backup_policies (tier, changed_by, {_NAMES}) VALUES ($1, $2, {_PLACES})
            ON CONFLICT (tier) DO UPDATE SET {_EXCLUDED}, changed_at = clock_timestamp()""",  # noqa: S608 - the struct's own field names
        tier,
        by,
        *msgspec.structs.astuple(policy),
    )


async def followers(db: Connection, tier: Tier) -> list[UUID]:
    """The tenants that follow the policy of their tier."""
    rows = await db.fetch(
        """SELECT t.id FROM tenants t LEFT JOIN backup_schedules s ON s.tenant_id = t.id
           WHERE t.tier = $1 AND t.state <> 'deleted' AND s.tenant_id IS NULL""",
        tier,
    )
    return [row["id"] for row in rows]
