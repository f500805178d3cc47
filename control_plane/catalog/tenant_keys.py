"""The keys of each tenant, by version: what the catalog knows of them.

The keys themselves are in the keystore. ``sealed`` is where they are without a keystore.
"""

from collections.abc import Iterable
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection

KeyState = Literal["next", "active", "retired", "destroyed"]
UsableState = Literal["active", "retired"]


class TenantKey(msgspec.Struct, frozen=True):
    """One version; ``sealed`` is ciphertext of the keyring, bound to tenant and version."""

    tenant_id: UUID
    version: int
    sealed: bytes | None
    state: KeyState

    @property
    def usable(self) -> bool:
        """Whether it opens something: it is active, or was."""
        return self.state in ("active", "retired")


_KEY = ", ".join(TenantKey.__struct_fields__)


async def every(db: Connection, tenant_id: UUID) -> list[TenantKey]:
    """All versions of a tenant's key, the oldest first; none before the first request."""
    rows = await db.fetch(
        f"SELECT {_KEY} FROM tenant_keys WHERE tenant_id = $1 ORDER BY version",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return [TenantKey(**dict(row)) for row in rows]


async def find(db: Connection, tenant_id: UUID, version: int) -> TenantKey | None:
    """This version of a tenant's key, in any state."""
    row = await db.fetchrow(
        f"SELECT {_KEY} FROM tenant_keys WHERE tenant_id = $1 AND version = $2",  # noqa: S608 - the struct's own field names
        tenant_id,
        version,
    )
    return TenantKey(**dict(row)) if row else None


async def lock(db: Connection, tenant_ids: Iterable[UUID]) -> None:
    """Be the only one who changes the keys of these tenants, until the transaction ends."""
    await db.execute(
        """SELECT pg_advisory_xact_lock(hashtextextended('tenant_keys|' || id, 0))
           FROM unnest($1::uuid[]) AS id""",
        sorted(set(tenant_ids)),
    )


async def reserve(db: Connection, tenant_id: UUID, *, above: int = 0) -> int:
    """A version, higher than all there are and than ``above``, for one attempt to make a key."""
    version: int = await db.fetchval(
        """INSERT INTO tenant_keys (tenant_id, version, state)
           SELECT $1, greatest(coalesce(max(version), 0), $2) + 1, 'next'
           FROM tenant_keys WHERE tenant_id = $1 RETURNING version""",
        tenant_id,
        above,
    )
    return version


async def keep_sealed(db: Connection, tenant_id: UUID, version: int, sealed: bytes) -> None:
    """The key itself, for a catalog without a keystore."""
    await db.execute(
        "UPDATE tenant_keys SET sealed = $3 WHERE tenant_id = $1 AND version = $2",
        tenant_id,
        version,
        sealed,
    )


async def forget_sealed(db: Connection, tenant_id: UUID, version: int) -> None:
    """The keystore holds the key now."""
    await db.execute(
        "UPDATE tenant_keys SET sealed = NULL WHERE tenant_id = $1 AND version = $2",
        tenant_id,
        version,
    )


async def activate(db: Connection, tenant_id: UUID, version: int) -> None:
    """New data is encrypted under this version; the one before only opens what it encrypted."""
    await db.execute(
        "UPDATE tenant_keys SET state = 'retired' WHERE tenant_id = $1 AND state = 'active'",
        tenant_id,
    )
    await db.execute(
        """UPDATE tenant_keys SET state = 'active'
           WHERE tenant_id = $1 AND version = $2 AND state = 'next'""",
        tenant_id,
        version,
    )


async def mark_destroyed(db: Connection, tenant_id: UUID) -> int:
    """No version of this tenant's key will ever open anything again; returns how many did."""
    rows = await db.fetch(
        """UPDATE tenant_keys k SET state = 'destroyed', sealed = NULL,
               destroyed_at = clock_timestamp()
           FROM (SELECT version, state FROM tenant_keys WHERE tenant_id = $1 FOR UPDATE) old
           WHERE k.tenant_id = $1 AND k.version = old.version AND k.state <> 'destroyed'
           RETURNING old.state""",
        tenant_id,
    )
    return sum(row["state"] in ("active", "retired") for row in rows)
