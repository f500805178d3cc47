"""Carrying out one mutating request: effect, audit and saved answer in a single transaction."""

from collections.abc import Awaitable, Callable

import msgspec

from control_plane.catalog import idempotency
from control_plane.catalog.idempotency import Fingerprint, SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Operation
from control_plane.services.ports import Ports


class Effect(msgspec.Struct, frozen=True):
    """What a request did: the answer to give, and an operation to ring for, if it made one."""

    answer: SavedAnswer
    operation: Operation | None = None


async def recall(ports: Ports, fingerprint: Fingerprint | None) -> SavedAnswer | None:
    """The answer already given to this request, before anything slow is done for it again.

    Raises:
        IdempotencyMismatch: the key was used for another request.
    """
    if fingerprint is None:
        return None
    async with ports.catalog.connection() as db:
        return await idempotency.find(db, fingerprint)


async def perform(
    ports: Ports,
    fingerprint: Fingerprint | None,
    effect: Callable[[Connection], Awaitable[Effect]],
) -> SavedAnswer:
    """Run ``effect`` once for this fingerprint; a repeat gets the first answer.

    The doorbell rings after the commit, so that a worker always finds the operation.

    Raises:
        IdempotencyMismatch: the key was used for another request.
        TenantryError: whatever ``effect`` raises; then nothing is recorded, the key neither.
    """
    async with ports.catalog.transaction() as db:
        if fingerprint is not None:
            saved = await idempotency.begin(db, fingerprint)
            if saved is not None:
                return saved
        done = await effect(db)
        if fingerprint is not None:
            await idempotency.save(db, fingerprint, done.answer)
    if done.operation is not None:
        await ports.doorbell.ring(done.operation.id, done.operation.queue)
    return done.answer
