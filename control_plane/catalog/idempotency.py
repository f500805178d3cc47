"""Idempotency keys (S-26): one request, one effect, however often it is sent.

The key is written in the transaction of the effect. A second request with the same key waits
for that transaction at the unique index and then finds the answer.
"""

from typing import Any
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict, IdempotencyMismatch


class SavedAnswer(msgspec.Struct, frozen=True):
    """The status and body that the first request got; never holds a secret."""

    status: int
    body: dict[str, Any]


class Fingerprint(msgspec.Struct, frozen=True):
    """Who sent which request under which key."""

    key_id: UUID
    key: str
    request_hash: bytes


async def begin(db: Connection, request: Fingerprint) -> SavedAnswer | None:
    """Take the key inside the caller's transaction, or return the answer already given.

    Raises:
        IdempotencyMismatch: the key was used for another request.
        Conflict: the first request left no answer.
    """
    taken = await db.fetchval(
        """INSERT INTO idempotency_keys (key_id, key, request_hash) VALUES ($1, $2, $3)
           ON CONFLICT (key_id, key) DO NOTHING RETURNING true""",
        request.key_id,
        request.key,
        request.request_hash,
    )
    if taken:
        return None
    saved = await find(db, request)
    if saved is None:
        raise Conflict("a request with this Idempotency-Key is still being handled; try again")
    return saved


async def find(db: Connection, request: Fingerprint) -> SavedAnswer | None:
    """The answer already given, if there is one; the key is not taken.

    Raises:
        IdempotencyMismatch: the key was used for another request.
    """
    row = await db.fetchrow(
        "SELECT request_hash, status, body FROM idempotency_keys WHERE key_id = $1 AND key = $2",
        request.key_id,
        request.key,
    )
    if row is None or row["status"] is None:
        return None
    if row["request_hash"] != request.request_hash:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used with another request; use a new key for a new request"
        )
    return SavedAnswer(row["status"], row["body"])


async def save(db: Connection, request: Fingerprint, answer: SavedAnswer) -> None:
    """Store the answer in the transaction that took the key."""
    await db.execute(
        "UPDATE idempotency_keys SET status = $3, body = $4 WHERE key_id = $1 AND key = $2",
        request.key_id,
        request.key,
        answer.status,
        answer.body,
    )


async def forget_old(db: Connection, *, hours: int) -> None:
    """Drop keys older than ``hours``; a repeat after that is a new request."""
    await db.execute(
        """DELETE FROM idempotency_keys
           WHERE created_at < clock_timestamp() - make_interval(hours => $1)""",
        hours,
    )
