"""Limits of single tenants that are not their tier's."""

from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.tenants import OwnLimits

_NAMES = ", ".join(OwnLimits.__struct_fields__)
_GIVEN = ", ".join(f"${n}" for n in range(4, 4 + len(OwnLimits.__struct_fields__)))
_REPLACED = ", ".join(
    f"{name} = excluded.{name}" for name in (*OwnLimits.__struct_fields__, "set_by", "reason")
)


async def put(
    db: Connection, tenant_id: UUID, own: OwnLimits, *, actor: str, reason: str | None
) -> None:
    """Record them in place of those it had; with none at all, it has its tier's again."""
    if own == OwnLimits():
        await db.execute("DELETE FROM tenant_limits WHERE tenant_id = $1", tenant_id)
        return
    await db.execute(
        f"""INSERT INTO tenant_limits (tenant_id, set_by, reason, {_NAMES})
            VALUES ($1, $2, $3, {_GIVEN})
            ON CONFLICT (tenant_id) DO UPDATE SET {_REPLACED}, set_at = clock_timestamp()""",  # noqa: S608 - the struct's own field names
        tenant_id,
        actor,
        reason,
        *msgspec.structs.astuple(own),
    )


async def reason(db: Connection, tenant_id: UUID) -> str | None:
    """Why it has limits of its own, as whoever set them said."""
    found: str | None = await db.fetchval(
        "SELECT reason FROM tenant_limits WHERE tenant_id = $1", tenant_id
    )
    return found
