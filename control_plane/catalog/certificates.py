"""Certificates of destruction, the key they are signed with, and what there is to certify."""

import datetime as dt
from typing import Any
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection


class Certificate(msgspec.Struct, frozen=True):
    """What was destroyed of a tenant, as it was signed."""

    id: UUID
    tenant_id: UUID
    issued_at: dt.datetime
    document: dict[str, Any]
    signature: bytes
    public_key: bytes


class SigningKey(msgspec.Struct, frozen=True):
    """An Ed25519 key; ``sealed`` is ciphertext of the keyring, bound to its id."""

    id: UUID
    public_key: bytes
    sealed: bytes


_CERTIFICATE = ", ".join(Certificate.__struct_fields__)


async def insert(db: Connection, certificate: Certificate) -> None:
    """Keep a certificate; a tenant has one, and the first stays."""
    await db.execute(
        f"""INSERT INTO certificates ({_CERTIFICATE}) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (tenant_id) DO NOTHING""",  # noqa: S608 - the struct's own field names
        *msgspec.structs.astuple(certificate),
    )


async def of_tenant(db: Connection, tenant_id: UUID) -> Certificate | None:
    """The certificate of a tenant that was destroyed."""
    row = await db.fetchrow(
        f"SELECT {_CERTIFICATE} FROM certificates WHERE tenant_id = $1",  # noqa: S608 - the struct's own field names
        tenant_id,
    )
    return Certificate(**dict(row)) if row else None


async def tenant_of_slug(db: Connection, slug: str) -> UUID | None:
    """The tenant that had this slug and was destroyed last."""
    tenant_id: UUID | None = await db.fetchval(
        """SELECT t.id FROM tenants t JOIN certificates c ON c.tenant_id = t.id
           WHERE t.slug = $1 AND t.state = 'deleted' ORDER BY c.issued_at DESC LIMIT 1""",
        slug,
    )
    return tenant_id


async def newest_signing_key(db: Connection) -> SigningKey | None:
    row = await db.fetchrow(
        "SELECT id, public_key, sealed FROM signing_keys ORDER BY created_at DESC, id LIMIT 1"
    )
    return SigningKey(**dict(row)) if row else None


async def add_signing_key(db: Connection, key: SigningKey) -> None:
    """Keep this key if there is none; of two at once the first to commit stays."""
    await db.execute("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE")
    await db.execute(
        """INSERT INTO signing_keys (id, public_key, sealed)
           SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM signing_keys)""",
        key.id,
        key.public_key,
        key.sealed,
    )


async def deletion(db: Connection, tenant_id: UUID) -> dict[str, Any]:
    """Who asked for the deletion and when."""
    row = await db.fetchrow(
        """SELECT actor, created_at FROM operations
           WHERE tenant_id = $1 AND kind = 'delete' ORDER BY created_at DESC LIMIT 1""",
        tenant_id,
    )
    return dict(row) if row else {}


async def dropped_databases(db: Connection, tenant_id: UUID) -> list[dict[str, Any]]:
    """Every database the tenant ever had that was dropped, with its roles or without."""
    rows = await db.fetch(
        """SELECT o.subject AS name, s.name AS server, o.finished_at AS at
           FROM operations o JOIN servers s ON s.id = o.server_id
           WHERE o.kind = 'reclaim' AND o.state = 'succeeded' AND o.input ->> 'tenant' = $1
           ORDER BY o.finished_at""",
        str(tenant_id),
    )
    return [dict(row) for row in rows]


async def deleted_backups(db: Connection, tenant_id: UUID) -> list[dict[str, Any]]:
    """Every backup that was once in the store, with the time its objects were deleted."""
    rows = await db.fetch(
        """SELECT id, snapshot_at, stored_bytes, key_version, pruned_at AS at
           FROM backups WHERE tenant_id = $1 AND state = 'pruned' ORDER BY snapshot_at""",
        tenant_id,
    )
    return [dict(row) for row in rows]


async def deleted_exports(db: Connection, tenant_id: UUID) -> list[dict[str, Any]]:
    """Every bundle that was once ready, with the time its object was deleted."""
    rows = await db.fetch(
        """SELECT id, finished_at AS made_at, stored_bytes, recipient, deleted_at AS at
           FROM exports WHERE tenant_id = $1 AND state = 'deleted' ORDER BY finished_at""",
        tenant_id,
    )
    return [dict(row) for row in rows]


async def destroyed_keys(db: Connection, tenant_id: UUID) -> list[dict[str, Any]]:
    """Every version of the tenant's key, with the time it was destroyed."""
    rows = await db.fetch(
        """SELECT version, destroyed_at AS at FROM tenant_keys
           WHERE tenant_id = $1 ORDER BY version""",
        tenant_id,
    )
    return [dict(row) for row in rows]
