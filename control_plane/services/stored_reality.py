"""Gathering what is in the object store, beside what the catalog expects to be there."""

import asyncio

from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import backup_snapshot
from control_plane.domain.backup_invariants import FoundObject, StoredWorld
from control_plane.domain.backups import BACKUPS_PREFIX, EXPORTS_PREFIX
from control_plane.domain.errors import StoreRefused, StoreUnavailable
from control_plane.services.ports import Ports


async def gather_stored(ports: Ports) -> StoredWorld:
    """Read the catalog in one snapshot, then list the store."""
    async with ports.catalog.snapshot() as db:
        known = await backup_snapshot.read(db)
    objects: list[FoundObject] = []
    problem = "none is configured, but there are backups" if known.backups else None
    if ports.store is not None:
        try:
            objects = await asyncio.to_thread(_objects, ports.store)
        except (StoreUnavailable, StoreRefused) as error:
            problem = f"cannot be looked at: {error.message}"
        else:
            problem = None
    return StoredWorld(known.now, known.backups, known.undrilled, known.wanted, objects, problem)


def _objects(store: ObjectStore) -> list[FoundObject]:
    """Everything that is ours but keys. Blocks."""
    found: list[FoundObject] = []
    for prefix in (BACKUPS_PREFIX, EXPORTS_PREFIX):
        found += [FoundObject(one.key, one.size, one.modified_at) for one in store.list(prefix)]
        found += [
            FoundObject(one.key, 0, one.begun_at, pending=True) for one in store.pending(prefix)
        ]
    return found
