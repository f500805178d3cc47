"""Manifests of backups in the store: composed, kept as a draft, named, read.

A draft carries the epoch of the attempt that uploaded the data it describes.
"""

import asyncio
from collections.abc import Iterator

import msgspec

from control_plane.adapters import backup_manifest
from control_plane.adapters.dump import Dumped
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import databases
from control_plane.catalog.backups import Backup
from control_plane.catalog.databases import Database
from control_plane.catalog.servers import Server
from control_plane.domain import backups as naming
from control_plane.domain.backups import BackedUpCredential, Manifest
from control_plane.domain.errors import ObjectMissing
from control_plane.domain.tenants import Tenant
from control_plane.services import tenant_keys
from control_plane.services.backups import require_store
from workers.engine.step import StepContext

_DRAFT = "draft."


class Source(msgspec.Struct, frozen=True):
    """What is backed up, and the fingerprint of its schema."""

    tenant: Tenant
    database: Database
    server: Server
    fingerprint: str


async def read_manifest(ctx: StepContext, backup: Backup) -> Manifest:
    """The manifest of a backup that is in the store.

    Raises:
        ObjectMissing: it is not there.
        BackupCorrupt: it is damaged, or of another backup.
        KeyUnavailable: the tenant's key cannot be had.
    """
    store = require_store(ctx.ports)
    name = naming.manifest_key(backup.tenant_id, backup.id)
    return await _open(ctx, backup, await asyncio.to_thread(store.get, name))


async def find_draft(ctx: StepContext, store: ObjectStore, backup: Backup) -> Manifest | None:
    """The newest draft whose data is in the store."""
    for name in await asyncio.to_thread(_drafts, store, backup):
        manifest = await _open(ctx, backup, await asyncio.to_thread(store.get, name))
        found = await asyncio.to_thread(store.head, manifest.object_key)
        if found is not None and found.size == manifest.stored_bytes:
            return manifest
    return None


async def require_draft(ctx: StepContext, store: ObjectStore, backup: Backup) -> Manifest:
    """The newest draft whose data is in the store.

    Raises:
        ObjectMissing: the data that was uploaded is not there any more.
    """
    manifest = await find_draft(ctx, store, backup)
    if manifest is None:
        raise ObjectMissing("what was uploaded is not in the store any more; back up again")
    return manifest


async def put_draft(store: ObjectStore, manifest: Manifest, key: bytes) -> None:
    """Keep the manifest of data that was uploaded, until the data has been read back."""
    sealed = backup_manifest.seal_manifest(manifest, key)
    await asyncio.to_thread(store.put, draft_key(manifest), sealed)


def draft_key(manifest: Manifest) -> str:
    """Where the draft of a manifest is: beside its data, with the same epoch."""
    folder, _, data = manifest.object_key.rpartition("/")
    return f"{folder}/{_DRAFT}{data.rpartition('.')[2]}"


def clear(store: ObjectStore, backup: Backup) -> None:
    """Delete what earlier attempts at this backup left in the store. Blocks."""
    folder = naming.folder(backup.tenant_id, backup.id)
    for upload in store.pending(folder):
        store.abort_pending(upload)
    store.delete(found.key for found in list(store.list(folder)))


def clear_drafts(store: ObjectStore, backup: Backup) -> None:
    """Delete the drafts of a backup that has its manifest. Blocks."""
    store.delete(_drafts(store, backup))


async def compose(
    ctx: StepContext, source: Source, backup: Backup, dumped: Dumped, key_version: int
) -> Manifest:
    """Everything that is known of a backup whose data this attempt has uploaded."""
    tenant, database, server = source.tenant, source.database, source.server
    return Manifest(
        backup_id=backup.id,
        tenant_id=tenant.id,
        roles_key=database.role_set_id,
        key_version=key_version,
        object_key=naming.object_key(backup.tenant_id, backup.id, ctx.epoch),
        slug=tenant.slug,
        name=tenant.name,
        tier=tenant.tier,
        region=tenant.region,
        labels=tenant.labels,
        template=database.template,
        template_fingerprint=database.template_fingerprint,
        schema_revision=database.schema_revision or "",
        schema_fingerprint=source.fingerprint,
        generation=database.generation,
        server_name=server.name,
        system_identifier=server.system_identifier,
        cause=backup.cause,
        credentials=await _credentials(ctx, database),
        **msgspec.structs.asdict(dumped),
    )


async def _credentials(ctx: StepContext, database: Database) -> list[BackedUpCredential]:
    async with ctx.catalog_read() as db:
        held = await databases.credentials(db, database.role_set_id)
    return [
        BackedUpCredential(c.slot, c.version, c.state, c.verifier, c.sealed) for c in held.values()
    ]


async def _open(ctx: StepContext, backup: Backup, data: bytes) -> Manifest:
    version = backup_manifest.peek(data).key_version
    key = await tenant_keys.key_version(ctx.ports, backup.tenant_id, version)
    return backup_manifest.open_manifest(
        data, backup_id=backup.id, tenant_id=backup.tenant_id, key=key
    )


def _drafts(store: ObjectStore, backup: Backup) -> list[str]:
    """The keys of the drafts, the newest attempt first."""
    prefix = f"{naming.folder(backup.tenant_id, backup.id)}{_DRAFT}"
    found: Iterator[str] = (one.key for one in store.list(prefix))
    return sorted(found, key=lambda name: int(name.rpartition(".")[2]), reverse=True)
