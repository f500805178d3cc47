"""Legal holds: while there is one, nothing of a tenant is destroyed.

Whoever destroys something asks here first, in a transaction that holds the tenant's row, so that
no hold is set in between.
"""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import LegalHold


class Hold(msgspec.Struct, frozen=True):
    """Why nothing of the tenant may be destroyed, who said so and when."""

    reason: str
    by: str
    at: dt.datetime


async def find(db: Connection, tenant_id: UUID) -> Hold | None:
    """The hold the tenant is under, if there is one."""
    row = await db.fetchrow(
        """SELECT legal_hold AS reason, legal_hold_by AS by, legal_hold_at AS at
           FROM tenants WHERE id = $1 AND legal_hold IS NOT NULL""",
        tenant_id,
    )
    return Hold(**dict(row)) if row else None


async def put(db: Connection, tenant_id: UUID, reason: str, by: str) -> None:
    """The tenant is under hold; a hold that was there gets the new reason and keeps its time."""
    await db.execute(
        """UPDATE tenants SET legal_hold = $2, legal_hold_by = $3,
               legal_hold_at = coalesce(legal_hold_at, clock_timestamp()) WHERE id = $1""",
        tenant_id,
        reason,
        by,
    )


async def lift(db: Connection, tenant_id: UUID) -> None:
    """The tenant is under no hold."""
    await db.execute(
        """UPDATE tenants SET legal_hold = NULL, legal_hold_by = NULL, legal_hold_at = NULL
           WHERE id = $1""",
        tenant_id,
    )


async def refuse_held(db: Connection, tenant_id: UUID) -> None:
    """Hold the tenant's row until the transaction ends, and make sure there is no hold.

    Raises:
        LegalHold: there is one.
    """
    await db.execute("SELECT FROM tenants WHERE id = $1 FOR UPDATE", tenant_id)
    hold = await find(db, tenant_id)
    if hold is not None:
        raise LegalHold(
            f"the tenant is under legal hold since {hold.at:%Y-%m-%d} ({hold.reason}); nothing of "
            "it may be destroyed until that is released"
        )
