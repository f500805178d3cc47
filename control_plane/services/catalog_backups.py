"""Backups of the catalog itself: made, listed, pruned. What is in the store is what counts.

They are sealed by the root key and by nothing that is in the catalog.
"""

import asyncio
import datetime as dt
import os
from collections.abc import Callable

import msgspec
import structlog

from control_plane.adapters import backup_object, catalog_manifest, clock
from control_plane.adapters.catalog_server import SESSION_NAME, find_catalog
from control_plane.adapters.dump import DumpJob, dump_to_store
from control_plane.adapters.key_file import KEY_BYTES
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import catalog_life, sealed
from control_plane.catalog.catalog_life import Made
from control_plane.catalog.pool import Connection
from control_plane.domain import catalog_backups as naming
from control_plane.domain.backups import MANIFEST
from control_plane.domain.catalog_backups import CATALOG_PREFIX, CatalogManifest, StoredCatalog
from control_plane.domain.errors import BackupCorrupt, Conflict, KeyUnavailable
from control_plane.domain.names import show
from control_plane.services.backups import require_store
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_MAJOR = 10_000
# What has no manifest may be on its way for so long.
_GARBAGE_AFTER = dt.timedelta(days=1)
_SHOWN = 5

Told = Callable[[str], None]


async def back_up(ports: Ports, told: Told | None = None) -> CatalogManifest:
    """Back the catalog up now; ``told`` hears how far it is, from any thread.

    Whoever dies here leaves an object without a manifest, and the lock goes with the session.

    Raises:
        Conflict: somebody is doing it already, or there is no store.
        CatalogNotAccepted: this is a copy that nobody has accepted.
        TenantryError: the catalog, the store or the programs of its Postgres are not there.
    """
    async with ports.catalog.transaction() as db:
        await catalog_life.require_usable(db)
        if not await catalog_life.try_to_back_up(db):
            raise Conflict("the catalog is being backed up by somebody else")
        manifest = await _store(ports, db, told or _nobody)
        made = Made(manifest.backup_id, manifest.snapshot_at, manifest.stored_bytes)
        await catalog_life.record_backup(db, made)
    return manifest


async def back_up_if_due(ports: Ports, interval: dt.timedelta) -> None:
    """Back the catalog up when the newest backup is old enough; prune after it."""
    if ports.store is None:
        return
    async with ports.catalog.connection() as db:
        life = await catalog_life.read_life(db)
    if life.backed_up and life.age_seconds < interval.total_seconds():
        return
    try:
        made = await back_up(ports)
    except Conflict:
        return
    shown = show("bk", made.backup_id)
    _log.info("catalog_backed_up", backup=shown, bytes=made.stored_bytes)
    await prune(ports)


async def prune(ports: Ports) -> list[StoredCatalog]:
    """Destroy the backups of the catalog that nobody needs any more, and what never became one.

    Returns what was destroyed.
    """
    store = require_store(ports)
    keep = dt.timedelta(days=ports.settings.backup.copies_kept_days)
    return await asyncio.to_thread(_prune, store, clock.now(), keep)


def every(store: ObjectStore) -> list[StoredCatalog]:
    """Every backup of the catalog in the store, the newest first. Blocks."""
    found = [
        StoredCatalog(one.modified_at, backup_id)
        for one in store.list(CATALOG_PREFIX)
        if one.key.endswith(f"/{MANIFEST}") and (backup_id := naming.parse_key(one.key))
    ]
    return sorted(found, reverse=True)


def release_epoch(ports: Ports, epoch: int, *, destroy: bool) -> list[StoredCatalog]:
    """Look that no backup is lost with this epoch of the root key, or destroy those that are.

    Returns what was destroyed. Blocks.

    Raises:
        KeyUnavailable: there are such backups; all of them, if they are to be destroyed.
        StoreUnavailable: that cannot be told.
    """
    store = ports.store
    if store is None:
        return []
    looked = {one: _needs(store, ports.keyring, one, epoch) for one in every(store)}
    opening = [one for one, needs in looked.items() if needs is not None]
    needing = [one for one in opening if looked[one]]
    if needing and needing[0] == opening[0]:
        raise KeyUnavailable(
            f"the newest backup of the catalog needs epoch {epoch}; make one that does not: "
            "tenantry admin catalog backup"
        )
    if needing and not destroy:
        named = ", ".join(show("bk", one.id) for one in needing[:_SHOWN])
        raise KeyUnavailable(
            f"{len(needing)} backups of the catalog need epoch {epoch}: {named}"
            f"{', …' if len(needing) > _SHOWN else ''}; they go by themselves after "
            f"{ports.settings.backup.copies_kept_days} days, and now with --destroy-backups"
        )
    store.delete(naming.manifest_key(one.id) for one in needing)
    store.delete(naming.data_key(one.id) for one in needing)
    return needing


def open_one(store: ObjectStore, keyring: Keyring, stored: StoredCatalog) -> CatalogManifest:
    """The manifest of a backup in the store. Blocks.

    Raises:
        BackupCorrupt, KeyUnavailable: it does not open.
    """
    data = store.get(naming.manifest_key(stored.id))
    return catalog_manifest.open_manifest(data, stored.id, keyring)


async def _store(ports: Ports, db: Connection, told: Told) -> CatalogManifest:
    """The backup in the store, read back from end to end before its manifest names it.

    Secrets may be sealed anew meanwhile: those of before and those of after are named.
    """
    store, settings = require_store(ports), ports.settings
    server = await find_catalog(settings.catalog_dsn, settings.catalog_password)
    backup_id, key = clock.new_id(), os.urandom(KEY_BYTES)
    migration, tenants = await catalog_life.describe(db)
    epochs = set(await sealed.by_epoch(db))
    job = DumpJob(
        address=server.address,
        database=server.database,
        session_name=SESSION_NAME,
        program=ports.programs.dump(server.version_num // _MAJOR),
        store=store,
        object_key=naming.data_key(backup_id),
        backup_id=backup_id,
        tenant_id=naming.CATALOG_ID,
        key_version=1,
        key=key,
    )
    dumped = await dump_to_store(job, lambda progress: told(progress.words))
    epochs |= set(await sealed.by_epoch(db))
    manifest = CatalogManifest(
        backup_id=backup_id,
        key=key,
        object_key=job.object_key,
        migration=migration,
        epochs=sorted(epochs),
        tenants=tenants,
        **msgspec.structs.asdict(dumped),
    )
    await asyncio.to_thread(backup_object.check_stored, store, manifest, key)
    data = catalog_manifest.seal_manifest(manifest, ports.keyring)
    await asyncio.to_thread(store.put, naming.manifest_key(backup_id), data)
    return manifest


def _needs(store: ObjectStore, keyring: Keyring, stored: StoredCatalog, epoch: int) -> bool | None:
    """Whether a backup is lost with this epoch; ``None`` for one that does not open as it is."""
    data = store.get(naming.manifest_key(stored.id))
    try:
        manifest = catalog_manifest.open_manifest(data, stored.id, keyring)
    except (BackupCorrupt, KeyUnavailable):
        return None
    return manifest.needs_epoch(epoch) or catalog_manifest.sealed_under(data) == epoch


def _prune(store: ObjectStore, now: dt.datetime, keep: dt.timedelta) -> list[StoredCatalog]:
    """The manifest goes first: without it a backup is not offered, whatever happens then."""
    found = every(store)
    doomed = set(naming.expired(found, now, keep))
    store.delete(naming.manifest_key(one) for one in doomed)
    whole = {one.id for one in found} - doomed
    garbage = [
        one.key
        for one in store.list(CATALOG_PREFIX)
        if (backup_id := naming.parse_key(one.key))
        and backup_id not in whole
        and (backup_id in doomed or now - one.modified_at > _GARBAGE_AFTER)
    ]
    store.delete(garbage)
    for upload in list(store.pending(CATALOG_PREFIX)):
        if now - upload.begun_at > _GARBAGE_AFTER:
            store.abort_pending(upload)
    return [one for one in found if one.id in doomed]


def _nobody(_: str) -> None:
    """Nobody listens."""
