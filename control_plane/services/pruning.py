"""Destroying what nobody needs any more: backups no rule keeps, leftovers, replaced databases.

Never under legal hold, and never a backup that is complete as far as anybody can tell but not
known to the catalog: after the loss of a catalog, those are all there is.
"""

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from uuid import UUID

import msgspec
import structlog

from control_plane.adapters.object_stores.store import ObjectStore, StoredObject
from control_plane.catalog import audit, backups, databases, pruning
from control_plane.catalog import tenants as catalog_tenants
from control_plane.catalog.audit import Entry
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.catalog.pruning import Doomed, Known
from control_plane.domain.backup_invariants import GARBAGE_AFTER
from control_plane.domain.backups import BACKUPS_PREFIX, EXPORTS_PREFIX, manifest_key
from control_plane.domain.errors import OperationInProgress
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.retention import keep
from control_plane.services.ports import Ports
from control_plane.services.reclaiming import condemn

_log = structlog.get_logger(__name__)
_SYSTEM = "system"
_TENANTS_AT_ONCE = 200
_PRUNED_AT_ONCE = 500
_OBJECTS_AT_ONCE = 1000
_RECLAIMED_AT_ONCE = 20
_KEY_PARTS = 4


class Leftover(msgspec.Struct, frozen=True):
    """An object under the folder of a backup."""

    key: str
    tenant_id: UUID
    backup_id: UUID

    @property
    def is_manifest(self) -> bool:
        return self.key == self.manifest_key

    @property
    def manifest_key(self) -> str:
        return manifest_key(self.tenant_id, self.backup_id)


async def prune_backups(ports: Ports, now: dt.datetime) -> None:
    """Destroy the backups that no rule of their tenant's policy keeps.

    Raises:
        StoreUnavailable, StoreRefused: the store does not let us; what is left is for next time.
    """
    if ports.store is None:
        return
    left, after = _PRUNED_AT_ONCE, None
    while left > 0:
        async with ports.catalog.connection() as db:
            few = await pruning.prunable(db, after, _TENANTS_AT_ONCE)
            found = await pruning.candidates(db, [one.tenant_id for one in few])
        for tenant in few:
            mine = found[tenant.tenant_id]
            kept = keep(mine, tenant.policy, now, held=False)
            doomed = [one.id for one in mine if one.id not in kept][:left]
            left -= len(doomed)
            for backup_id in doomed:
                await _prune(ports, ports.store, backup_id)
        if len(few) < _TENANTS_AT_ONCE:
            return
        after = few[-1].tenant_id


async def collect_garbage(ports: Ports, now: dt.datetime) -> None:
    """Delete what was left in the store a day ago by work that came to nothing.

    Raises:
        StoreUnavailable, StoreRefused: the store does not let us; what is left is for next time.
    """
    store = ports.store
    if store is None:
        return
    before = now - GARBAGE_AFTER
    listed = store.list(BACKUPS_PREFIX)
    while objects := await asyncio.to_thread(_next_objects, listed):
        old = [one for each in objects if each.modified_at < before if (one := _parse(each.key))]
        if old:
            async with ports.catalog.transaction() as db:
                await _collect(db, store, old)
    await asyncio.to_thread(_abort_uploads, store, before)


async def drop_replaced(ports: Ports, now: dt.datetime) -> None:
    """Hand databases that can be taken back no longer to a reclaim operation each."""
    async with ports.catalog.connection() as db:
        expired = await pruning.expired_previous(db, now, _RECLAIMED_AT_ONCE)
    for database in expired:
        try:
            async with ports.catalog.transaction() as db:
                operation = await _give_up(db, database, now)
        except OperationInProgress:
            continue
        if operation is not None:
            await ports.doorbell.ring(operation.id, operation.queue)


async def _prune(ports: Ports, store: ObjectStore, backup_id: UUID) -> None:
    """The manifest goes first: without it a backup is not offered, whatever happens then."""
    async with ports.catalog.transaction() as db:
        doomed = await pruning.take_doomed(db, backup_id)
        if doomed is None:
            return
        await asyncio.to_thread(store.delete, [doomed.manifest_key])
        await asyncio.to_thread(store.delete, [doomed.object_key])
        await backups.mark_pruned(db, doomed.id)
        await audit.record_system(db, _pruned(doomed))


def _pruned(doomed: Doomed) -> Entry:
    facts: dict[str, object] = {
        "backup": show("bk", doomed.id),
        "snapshot_at": doomed.snapshot_at.isoformat(),
    }
    return Entry("backup.prune", doomed.slug, tenant_id=doomed.tenant_id, facts=facts)


def _next_objects(listed: Iterator[StoredObject]) -> list[StoredObject]:
    return list(islice(listed, _OBJECTS_AT_ONCE))


def _parse(key: str) -> Leftover | None:
    """Which backup an object is of; ``None`` for what we did not write."""
    parts = key.split("/")
    if len(parts) != _KEY_PARTS:
        return None
    try:
        return Leftover(key, UUID(hex=parts[1]), UUID(hex=parts[2]))
    except ValueError:
        return None


async def _collect(db: Connection, store: ObjectStore, old: Sequence[Leftover]) -> None:
    known = await pruning.known(db, list({one.backup_id for one in old}))
    found = [one for one in old if not await asyncio.to_thread(_is_needed, store, one, known)]
    unheld = await pruning.hold_unheld(db, list({one.tenant_id for one in found}))
    garbage = [one for one in found if one.tenant_id in unheld]
    # Manifests first: what is half deleted is not taken for a backup.
    for batch in (
        [one.key for one in garbage if one.is_manifest],
        [one.key for one in garbage if not one.is_manifest],
    ):
        if batch:
            _log.info("garbage_deleted", objects=len(batch), such_as=batch[0])
            await asyncio.to_thread(store.delete, batch)


def _is_needed(store: ObjectStore, one: Leftover, known: Mapping[UUID, Known]) -> bool:
    """Whether the object is, or may be, part of a backup that can be restored. Blocks."""
    backup = known.get(one.backup_id)
    if backup is None:
        complete = one.is_manifest or store.head(one.manifest_key) is not None
        if complete:
            _log.warning("unknown_backup", key=one.key)
        return complete
    if backup.state in ("complete", "corrupt"):
        return one.key in (backup.object_key, backup.manifest_key)
    return backup.state == "running"


def _abort_uploads(store: ObjectStore, before: dt.datetime) -> None:
    """End uploads that nobody will finish: their operations are past their deadlines. Blocks."""
    for prefix in (BACKUPS_PREFIX, EXPORTS_PREFIX):
        for upload in list(store.pending(prefix)):
            if upload.begun_at < before:
                store.abort_pending(upload)


async def _give_up(db: Connection, database: Database, now: dt.datetime) -> Operation | None:
    """Look again with the tenant's row held: it may be taken back, or held, this moment."""
    if database.tenant_id is None:
        return None
    tenant = await catalog_tenants.lock(db, database.tenant_id)
    found = await databases.get(db, database.id)
    expired = found.purpose == "previous" and found.kept_until and found.kept_until <= now
    if tenant.operation_id is not None or tenant.legal_hold or not expired:
        return None
    return await condemn(db, found, _SYSTEM)
