"""Gathering what is in the object store, beside what the catalog expects to be there."""

import asyncio

from control_plane.adapters.keystore import Keystore
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import backup_snapshot
from control_plane.catalog.backup_snapshot import StoredSnapshot
from control_plane.domain.backup_invariants import FoundObject, MissingKey, StoredWorld
from control_plane.domain.backups import BACKUPS_PREFIX, EXPORTS_PREFIX
from control_plane.domain.errors import StoreRefused, StoreUnavailable
from control_plane.services.ports import Ports


async def gather_stored(ports: Ports) -> StoredWorld:
    """Read the catalog in one snapshot, then list store and keystore."""
    async with ports.catalog.snapshot() as db:
        known = await backup_snapshot.read(db)
    try:
        objects = await asyncio.to_thread(_objects, ports.store)
        missing = await asyncio.to_thread(_missing_keys, ports.keystore, known)
    except (StoreUnavailable, StoreRefused) as error:
        return _world(known, [], [], f"cannot be looked at: {error.message}")
    unset = ports.store is None and known.backups
    problem = "none is configured, but there are backups" if unset else None
    return _world(known, objects, missing, problem)


def _world(
    known: StoredSnapshot,
    objects: list[FoundObject],
    missing: list[MissingKey],
    problem: str | None,
) -> StoredWorld:
    return StoredWorld(
        now=known.now,
        backups=known.backups,
        undrilled=known.undrilled,
        wanted=known.wanted,
        objects=objects,
        missing_keys=missing,
        problem=problem,
    )


def _objects(store: ObjectStore | None) -> list[FoundObject]:
    """Everything that is ours but keys. Blocks."""
    found: list[FoundObject] = []
    if store is None:
        return found
    for prefix in (BACKUPS_PREFIX, EXPORTS_PREFIX):
        found += [FoundObject(one.key, one.size, one.modified_at) for one in store.list(prefix)]
        found += [
            FoundObject(one.key, 0, one.begun_at, pending=True) for one in store.pending(prefix)
        ]
    return found


def _missing_keys(keystore: Keystore | None, known: StoredSnapshot) -> list[MissingKey]:
    """Keys that are nowhere. Blocks."""
    held = {(key.tenant, key.version) for key in keystore.every()} if keystore else set()
    return sorted(
        MissingKey(slug, version)
        for (tenant, version), slug in known.keys.items()
        if (tenant, version) not in held
    )
