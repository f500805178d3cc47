"""API keys in the catalog: a lookup id and a hash, never the key (S-23)."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound
from control_plane.domain.keys import Role


class ApiKey(msgspec.Struct, frozen=True):
    """One key as recorded."""

    id: UUID
    lookup: str
    secret_hash: bytes
    name: str
    roles: list[Role]
    tenant_id: UUID | None
    created_by: str
    created_at: dt.datetime
    expires_at: dt.datetime
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    expired: bool


_SELECT = """
    SELECT id, lookup, secret_hash, name, roles, tenant_id, created_by, created_at, expires_at,
           revoked_at, last_used_at, expires_at <= clock_timestamp() AS expired FROM api_keys
"""


async def insert(db: Connection, key: ApiKey) -> None:
    await db.execute(
        """INSERT INTO api_keys (id, lookup, secret_hash, name, roles, tenant_id, created_by,
                                 expires_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)""",
        key.id,
        key.lookup,
        key.secret_hash,
        key.name,
        key.roles,
        key.tenant_id,
        key.created_by,
        key.expires_at,
    )


async def by_lookup(db: Connection, lookup: str) -> ApiKey | None:
    row = await db.fetchrow(_SELECT + " WHERE lookup = $1", lookup)
    return ApiKey(**dict(row)) if row else None


async def find(db: Connection, key_id: UUID) -> ApiKey | None:
    row = await db.fetchrow(_SELECT + " WHERE id = $1", key_id)
    return ApiKey(**dict(row)) if row else None


async def mark_used(db: Connection, key_id: UUID) -> None:
    """Note the use of a key, at most once a minute so that reads stay cheap."""
    await db.execute(
        """UPDATE api_keys SET last_used_at = clock_timestamp()
           WHERE id = $1 AND (last_used_at IS NULL
                 OR last_used_at < clock_timestamp() - interval '1 minute')""",
        key_id,
    )


async def page(db: Connection, *, before: UUID | None, limit: int) -> list[ApiKey]:
    """Up to ``limit`` keys, newest first, older than the key ``before``."""
    rows = await db.fetch(
        _SELECT  # noqa: S608 - constants of this module
        + """ WHERE ($1::uuid IS NULL OR (created_at, id) <
                     (SELECT x.created_at, x.id FROM api_keys x WHERE x.id = $1))
              ORDER BY created_at DESC, id DESC LIMIT $2""",
        before,
        limit,
    )
    return [ApiKey(**dict(row)) for row in rows]


async def revoke(db: Connection, key_id: UUID) -> None:
    """End a key now; doing it twice is harmless.

    Raises:
        NotFound: there is no such key.
    """
    found = await db.fetchval(
        """UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
           WHERE id = $1 RETURNING id""",
        key_id,
    )
    if found is None:
        raise NotFound("there is no such key")
