"""What may be destroyed of what is stored: backups no rule keeps, leftovers, replaced databases."""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.backup_schedules import EFFECTIVE, JOIN_POLICY, policy_of
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.domain.backups import BackupState
from control_plane.domain.retention import Candidate
from control_plane.domain.schedules import Policy

_CANDIDATE = """
    b.id, b.state, b.cause, b.snapshot_at, b.verified_at IS NOT NULL AS verified, b.pinned
"""
_AT_REST = """NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                  AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))"""
_DATABASE = ", ".join(f"d.{name}" for name in Database.__struct_fields__)


class Prunable(msgspec.Struct, frozen=True):
    """A tenant of which something may be destroyed, if its policy does not keep it."""

    tenant_id: UUID
    policy: Policy


class Doomed(msgspec.Struct, frozen=True):
    """A backup whose objects are about to be deleted."""

    id: UUID
    tenant_id: UUID
    slug: str
    object_key: str
    manifest_key: str
    snapshot_at: dt.datetime


class Known(msgspec.Struct, frozen=True):
    """What the catalog knows of the backup that an object is of."""

    id: UUID
    state: BackupState
    object_key: str | None
    manifest_key: str | None


async def prunable(db: Connection, after: UUID | None, limit: int) -> list[Prunable]:
    """Up to ``limit`` tenants with more than one backup, by id; none under legal hold.

    Nor one that some operation works on: it may be reading a backup.
    """
    rows = await db.fetch(
        f"""SELECT t.id, {EFFECTIVE} FROM tenants t {JOIN_POLICY}
            WHERE t.state IN ('active', 'suspended', 'archived') AND t.legal_hold IS NULL
              AND ($1::uuid IS NULL OR t.id > $1) AND {_AT_REST}
              AND (SELECT count(*) FROM backups b WHERE b.tenant_id = t.id
                   AND b.state IN ('complete', 'corrupt')) > 1
            ORDER BY t.id LIMIT $2""",  # noqa: S608 - constants and the struct's own field names
        after,
        limit,
    )
    return [Prunable(row["id"], policy_of(row)) for row in rows]


async def candidates(db: Connection, tenant_ids: Sequence[UUID]) -> dict[UUID, list[Candidate]]:
    """The backups of these tenants whose objects are in the store."""
    rows = await db.fetch(
        f"""SELECT b.tenant_id, {_CANDIDATE} FROM backups b
            WHERE b.tenant_id = ANY($1) AND b.state IN ('complete', 'corrupt')""",  # noqa: S608 - constants of this module
        list(tenant_ids),
    )
    found: dict[UUID, list[Candidate]] = {tenant_id: [] for tenant_id in tenant_ids}
    for row in rows:
        values = dict(row)
        found[values.pop("tenant_id")].append(Candidate(**values))
    return found


async def take_doomed(db: Connection, backup_id: UUID) -> Doomed | None:
    """The backup, held until the transaction ends; ``None`` when it may not be destroyed now.

    Its tenant's row is held as well, so that no legal hold is set while objects go.
    """
    row = await db.fetchrow(
        f"""SELECT b.id, b.tenant_id, t.slug, b.object_key, b.manifest_key, b.snapshot_at
            FROM backups b JOIN tenants t ON t.id = b.tenant_id
            WHERE b.id = $1 AND b.state IN ('complete', 'corrupt') AND NOT b.pinned
              AND t.legal_hold IS NULL AND {_AT_REST}
            FOR UPDATE OF b SKIP LOCKED FOR SHARE OF t SKIP LOCKED""",  # noqa: S608 - constants of this module
        backup_id,
    )
    return Doomed(**dict(row)) if row else None


async def known(db: Connection, backup_ids: Sequence[UUID]) -> dict[UUID, Known]:
    """Those of these backups that the catalog knows."""
    rows = await db.fetch(
        "SELECT id, state, object_key, manifest_key FROM backups WHERE id = ANY($1)",
        list(backup_ids),
    )
    return {row["id"]: Known(**dict(row)) for row in rows}


async def hold_unheld(db: Connection, tenant_ids: Sequence[UUID]) -> frozenset[UUID]:
    """Those of these tenants that are under no legal hold; none is set until the transaction ends.

    A tenant the catalog does not know is under none.
    """
    rows = await db.fetch(
        "SELECT id, legal_hold FROM tenants WHERE id = ANY($1) ORDER BY id FOR SHARE",
        list(tenant_ids),
    )
    return frozenset(tenant_ids) - {row["id"] for row in rows if row["legal_hold"] is not None}


async def expired_previous(db: Connection, now: dt.datetime, limit: int) -> list[Database]:
    """Databases that an in-place restore replaced and that can be taken back no longer."""
    rows = await db.fetch(
        f"""SELECT {_DATABASE} FROM databases d JOIN tenants t ON t.id = d.tenant_id
            WHERE d.purpose = 'previous' AND d.kept_until <= $1 AND t.legal_hold IS NULL
              AND {_AT_REST}
            ORDER BY d.kept_until LIMIT $2""",  # noqa: S608 - constants and the struct's own field names
        now,
        limit,
    )
    return [Database(**dict(row)) for row in rows]
