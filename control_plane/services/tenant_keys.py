"""The keys of each tenant: made, opened, rotated, destroyed.

With a keystore the keys are there and the catalog knows their versions; without one they are
sealed in the catalog, and move to the keystore at their first use once there is one.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from control_plane.adapters.key_file import KEY_BYTES
from control_plane.adapters.keystore import Keystore
from control_plane.catalog import audit, tenant_keys
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.catalog.tenant_keys import TenantKey, UsableState
from control_plane.domain.errors import KeyUnavailable, WrongState
from control_plane.domain.tenants import Tenant
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_PURPOSE = "field"
_ROTATABLE = ("active", "suspended", "archived")


class TenantKeyMaterial(msgspec.Struct, frozen=True):
    """One version of a tenant's key, in plain; it never leaves the process that opened it."""

    version: int
    key: bytes
    state: UsableState = "active"

    def __repr__(self) -> str:
        return f"TenantKeyMaterial(version {self.version}, {self.state})"


class Rotated(msgspec.Struct, frozen=True):
    """A tenant's key was rotated: new data is encrypted under ``version``."""

    tenant: Tenant
    version: int
    versions: list[int]


async def active_key(db: Connection, ports: Ports, tenant_id: UUID) -> TenantKeyMaterial:
    """The key for new data; a tenant's first request makes it.

    Not in a transaction that holds a lock on the tenant's own row.

    Raises:
        KeyUnavailable: the keys were destroyed, or this one does not open.
        KeyServiceUnavailable, StoreUnavailable: what holds or opens it is away.
    """
    held = await _usable(db, ports, tenant_id)
    active = next(key for key in held if key.state == "active")
    return await _open(db, ports, active)


async def every_key(db: Connection, ports: Ports, tenant_id: UUID) -> list[TenantKeyMaterial]:
    """All keys that data of the tenant may be encrypted under, the oldest first.

    Raises:
        KeyUnavailable, KeyServiceUnavailable, StoreUnavailable: see ``active_key``.
    """
    return [await _open(db, ports, key) for key in await _usable(db, ports, tenant_id)]


async def open_ahead(ports: Ports, tenant_id: UUID) -> None:
    """Have the keystore's keys of a tenant at hand before a transaction begins that needs them.

    So nobody holds a connection to the catalog while a key service does not answer.

    Raises:
        KeyUnavailable, KeyServiceUnavailable, StoreUnavailable: see ``active_key``.
    """
    if ports.keystore is None:
        return
    async with ports.catalog.connection() as db:
        held = await tenant_keys.every(db, tenant_id)
    for key in held:
        if key.usable and key.sealed is None:
            await asyncio.to_thread(ports.keystore.open, tenant_id, key.version)


async def key_version(ports: Ports, tenant_id: UUID, version: int) -> bytes:
    """The key that something was encrypted under.

    Raises:
        KeyUnavailable, KeyServiceUnavailable, StoreUnavailable: see ``active_key``.
    """
    if ports.keystore is not None:
        key = await asyncio.to_thread(ports.keystore.find, tenant_id, version)
        if key is not None:
            return key
    async with ports.catalog.connection() as db:
        known = await tenant_keys.find(db, tenant_id, version)
        if known is None or not known.usable:
            raise _gone(tenant_id, version)
        return (await _open(db, ports, known)).key


async def rotate(
    db: Connection, ports: Ports, caller: Caller, slug_or_id: str, *, replaces: int | None = None
) -> Rotated:
    """Encrypt the tenant's new data under a new key; the keys until now still open theirs.

    Raises:
        NotFound: there is no such tenant.
        WrongState: it is being made, or deleted; or version ``replaces`` is not the active one.
        KeyUnavailable, KeyServiceUnavailable, StoreUnavailable: see ``active_key``.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    if tenant.state not in _ROTATABLE:
        raise WrongState(f"{tenant.slug} is {tenant.state}; only a living tenant's key is rotated")
    async with _alone(db, tenant.id):
        held = await tenant_keys.every(db, tenant.id)
        _refuse_destroyed(held, tenant.id)
        active = next((key.version for key in held if key.state == "active"), 0)
        if replaces not in (None, active):
            raise WrongState(f"version {active} of the key of {tenant.slug} is the active one")
        version = await _make(db, ports, tenant.id)
    opening = [key.version for key in await tenant_keys.every(db, tenant.id) if key.usable]
    facts: dict[str, object] = {"version": version}
    await audit.record(
        db, caller, Entry("tenant_key.rotate", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return Rotated(tenant, version, opening)


async def destroy(db: Connection, ports: Ports, tenant_id: UUID) -> int:
    """Destroy every version of a tenant's key, for good; returns how many opened something.

    Doing it twice is harmless. Copies that were opened are forgotten by other processes within
    ``CACHE_SECONDS``.

    Raises:
        KeyUnavailable, StoreUnavailable: the keystore still holds one; do it again.
    """
    async with _alone(db, tenant_id):
        destroyed = await tenant_keys.mark_destroyed(db, tenant_id)
        if ports.keystore is not None:
            await asyncio.to_thread(ports.keystore.destroy, tenant_id)
    return destroyed


async def _usable(db: Connection, ports: Ports, tenant_id: UUID) -> list[TenantKey]:
    """The versions that open something; the first is made now."""
    held = await tenant_keys.every(db, tenant_id)
    _refuse_destroyed(held, tenant_id)
    if not any(key.usable for key in held):
        async with _alone(db, tenant_id):
            held = await tenant_keys.every(db, tenant_id)
            if not any(key.usable for key in held):
                await _make(db, ports, tenant_id)
        held = await tenant_keys.every(db, tenant_id)
    return [key for key in held if key.usable]


async def _make(db: Connection, ports: Ports, tenant_id: UUID) -> int:
    """A new active key. What a crash leaves on the way is a number that nobody uses."""
    if ports.keystore is None:
        version = await tenant_keys.reserve(db, tenant_id)
        sealed = _seal(ports, tenant_id, version, os.urandom(KEY_BYTES))
        await tenant_keys.keep_sealed(db, tenant_id, version, sealed)
    else:
        version = await _reserve(ports, ports.keystore, tenant_id)
        await asyncio.to_thread(ports.keystore.create, tenant_id, version)
    await tenant_keys.activate(db, tenant_id, version)
    return version


async def _reserve(ports: Ports, keystore: Keystore, tenant_id: UUID) -> int:
    """A version of our own, on record before its key is written, whatever happens to us then.

    The catalog may be older than the keystore, when it had to be restored.
    """
    held = await asyncio.to_thread(lambda: [name.version for name in keystore.every(tenant_id)])
    async with ports.catalog.connection() as own:
        return await tenant_keys.reserve(own, tenant_id, above=max(held, default=0))


async def _open(db: Connection, ports: Ports, key: TenantKey) -> TenantKeyMaterial:
    if ports.keystore is None:
        plain = _unseal(ports, key)
    else:
        if key.sealed is not None:
            await _move(db, ports, ports.keystore, key)
        plain = await asyncio.to_thread(ports.keystore.open, key.tenant_id, key.version)
    return TenantKeyMaterial(key.version, plain, "active" if key.state == "active" else "retired")


async def _move(db: Connection, ports: Ports, keystore: Keystore, key: TenantKey) -> None:
    """From the catalog to the keystore; the catalog forgets it once it was read back there."""
    async with _alone(db, key.tenant_id):
        now = await tenant_keys.find(db, key.tenant_id, key.version)
        if now is None or now.sealed is None:
            return
        plain = _unseal(ports, now)
        await asyncio.to_thread(keystore.keep, key.tenant_id, key.version, plain)
        await tenant_keys.forget_sealed(db, key.tenant_id, key.version)


@asynccontextmanager
async def _alone(db: Connection, tenant_id: UUID) -> AsyncIterator[None]:
    """Nobody else makes, moves, wraps or destroys keys of this tenant meanwhile."""
    async with db.transaction():
        await tenant_keys.lock(db, [tenant_id])
        yield


def _seal(ports: Ports, tenant_id: UUID, version: int, key: bytes) -> bytes:
    secret = base64.b64encode(key).decode()
    return ports.keyring.seal(secret, owner=tenant_id, purpose=_PURPOSE, version=version)


def _unseal(ports: Ports, key: TenantKey) -> bytes:
    if key.sealed is None:
        raise KeyUnavailable(
            f"version {key.version} of the key of tenant {key.tenant_id} is in a keystore, and "
            "none is configured; set TENANTRY_KEYSTORE"
        )
    secret = ports.keyring.open(
        key.sealed, owner=key.tenant_id, purpose=_PURPOSE, version=key.version
    )
    return base64.b64decode(secret)


def _refuse_destroyed(held: list[TenantKey], tenant_id: UUID) -> None:
    if any(key.state == "destroyed" for key in held):
        raise KeyUnavailable(f"the keys of tenant {tenant_id} were destroyed")


def _gone(tenant_id: UUID, version: int) -> KeyUnavailable:
    return KeyUnavailable(f"there is no version {version} of the key of tenant {tenant_id}")
