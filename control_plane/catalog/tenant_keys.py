"""The sealed key of each tenant, by version; what it protects is derived from it."""

from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection

KeyState = Literal["active", "retired"]


class TenantKey(msgspec.Struct, frozen=True):
    """One version; ``sealed`` is ciphertext of the keyring, bound to tenant and version."""

    tenant_id: UUID
    version: int
    sealed: bytes
    state: KeyState


async def every(db: Connection, tenant_id: UUID) -> list[TenantKey]:
    """All versions of a tenant's key, the oldest first; none before the first request."""
    rows = await db.fetch(
        """SELECT tenant_id, version, sealed, state FROM tenant_keys
           WHERE tenant_id = $1 ORDER BY version""",
        tenant_id,
    )
    return [TenantKey(**dict(row)) for row in rows]


async def add_first(db: Connection, key: TenantKey) -> None:
    """Keep this key if the tenant has none; of two at once the first to commit stays."""
    await db.execute(
        """INSERT INTO tenant_keys (tenant_id, version, sealed, state)
           VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING""",
        key.tenant_id,
        key.version,
        key.sealed,
        key.state,
    )
