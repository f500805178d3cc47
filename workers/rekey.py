"""Rekey: whatever an older root key holds is put under the one of today.

Nothing is ever without a key that opens it: old root keys stay until nothing needs them, and a
secret that is changed meanwhile keeps its change.
"""

import asyncio

from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import KeyName, Keystore
from control_plane.catalog import audit, sealed, tenant_keys
from control_plane.catalog.audit import Entry
from control_plane.catalog.sealed import SealedColumn, SealedValue
from control_plane.domain.plans import PLANS
from control_plane.services.root_keys import SUBJECT, needs
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps.telling import telling

_KEYS_AT_ONCE = 16
_SECRETS_AT_ONCE = 200
_AGAIN_SECONDS = 1.0


async def rewrap_tenant_keys(ctx: StepContext) -> Outcome:
    """Every key in the keystore is wrapped by the root key of today."""
    if ctx.ports.keystore is None:
        return Skip("no keystore is configured")
    renewed, held = await _rewrap(ctx, ctx.ports.keystore)
    return Done(f"{renewed} of {held} tenant keys wrapped anew")


async def reseal_secrets(ctx: StepContext) -> Outcome:
    """Every secret in the catalog is sealed by the root key of today."""
    return Done(f"{await _reseal(ctx)} secrets sealed anew")


async def verify_keys(ctx: StepContext) -> Outcome:
    """Nothing needs an older root key, and the audit log says so."""
    async with ctx.catalog_read() as db:
        found = await needs(db, ctx.ports)
    late = found.old_keys + found.old_secrets
    if late:
        # A process that had not read the new key file yet.
        if ctx.ports.keystore is not None:
            await _rewrap(ctx, ctx.ports.keystore)
        await _reseal(ctx)
        return Wait(_AGAIN_SECONDS, f"{late} keys and secrets came late; looking again")
    keys, secrets = sum(found.keys.values()), sum(found.secrets.values())
    facts: dict[str, object] = {"epoch": found.epoch, "keys": keys, "secrets": secrets}
    async with ctx.catalog_write() as db:
        await audit.record_system(db, Entry("root_key.verified", SUBJECT, facts=facts))
    return Done(f"{keys} tenant keys and {secrets} secrets need no older root key")


async def _rewrap(ctx: StepContext, keystore: Keystore) -> tuple[int, int]:
    """Wrap anew what an older root wrapped; how many that were, of how many."""
    names = await asyncio.to_thread(lambda: sorted(keystore.every()))
    renewed = 0
    async with telling(ctx) as tell:
        for start in range(0, len(names), _KEYS_AT_ONCE):
            renewed += await _rewrap_some(ctx, keystore, names[start : start + _KEYS_AT_ONCE])
            tell(f"{start} of {len(names)} tenant keys looked at")
    return renewed, len(names)


async def _rewrap_some(ctx: StepContext, keystore: Keystore, names: list[KeyName]) -> int:
    """A key that is being destroyed meanwhile must not be written again: its tenant is locked."""
    async with ctx.catalog_write() as db:
        await tenant_keys.lock(db, [name.tenant_id for name in names])
        done = await asyncio.gather(
            *(asyncio.to_thread(keystore.rewrap, name) for name in names), return_exceptions=True
        )
    for outcome in done:
        if isinstance(outcome, BaseException):
            raise outcome
    return sum(map(bool, done))


async def _reseal(ctx: StepContext) -> int:
    """Seal anew what an older epoch sealed, some at a time; how many that were."""
    renewed = 0
    async with telling(ctx) as tell:
        for column in sealed.COLUMNS:
            while some := await _reseal_some(ctx, column):
                renewed += some
                tell(f"{renewed} secrets sealed anew")
    return renewed


async def _reseal_some(ctx: StepContext, column: SealedColumn) -> int:
    """How many were there to do; one that was changed meanwhile is found again if it has to be."""
    keyring = ctx.ports.keyring
    async with ctx.catalog_write() as db:
        found = await sealed.older(db, column, keyring.active, _SECRETS_AT_ONCE)
        changes = [(value.sealed, _resealed(keyring, value)) for value in found]
        await sealed.replace(db, column, changes)
    return len(found)


def _resealed(keyring: Keyring, value: SealedValue) -> bytes:
    secret = keyring.open(
        value.sealed, owner=value.owner, purpose=value.purpose, version=value.version
    )
    return keyring.seal(secret, owner=value.owner, purpose=value.purpose, version=value.version)


VERB = Verb(plan=PLANS["rekey"], steps=(rewrap_tenant_keys, reseal_secrets, verify_keys))
