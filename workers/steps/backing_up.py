"""Making one backup: shared by every verb that ends with one in the store.

The data goes up first, under a name of this attempt's epoch, then a draft of the manifest beside
it. Only once the stored object was read back does the manifest get its own name, which is what
makes a backup of it; whatever has no manifest is garbage and is swept.
"""

import asyncio

from control_plane.adapters import backup_login, backup_object, clock, dump
from control_plane.adapters.dump import Dumped, DumpJob
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from control_plane.catalog import backups, databases, tenants
from control_plane.catalog.backups import Backup, NewBackup
from control_plane.catalog.pool import Connection
from control_plane.domain import backups as naming
from control_plane.domain.backups import BackupCause, Manifest
from control_plane.domain.errors import BackupCorrupt
from control_plane.domain.names import show
from control_plane.services import tenant_keys
from control_plane.services.backups import require_store
from control_plane.services.tenant_keys import TenantKeyMaterial
from workers.engine.step import Done, Outcome, StepContext
from workers.steps import manifests
from workers.steps.manifests import Source
from workers.steps.telling import size_words, telling

_MAJOR = 10_000


async def prepare(ctx: StepContext, cause: BackupCause, *, pinned: bool = False) -> Outcome:
    """The backup is on record, and there is a key to seal it with."""
    require_store(ctx.ports)
    async with ctx.catalog_write() as db:
        known = await backups.of_operation(db, ctx.operation.id)
        backup_id = known.id if known else clock.new_id()
        if known is None:
            wanted = NewBackup(backup_id, ctx.tenant_id, ctx.operation.id, cause, pinned=pinned)
            await backups.insert(db, wanted)
        await tenant_keys.active_key(db, ctx.ports, ctx.tenant_id)
    return Done(show("bk", backup_id))


async def upload_dump(ctx: StepContext) -> Outcome:
    """The dump is in the store, encrypted, with the draft of its manifest beside it."""
    store, backup = require_store(ctx.ports), await _backup(ctx)
    manifest = await manifests.find_draft(ctx, store, backup)
    if manifest is None:
        await asyncio.to_thread(manifests.clear, store, backup)
        manifest = await _upload(ctx, store, backup)
    return Done(
        f"{size_words(manifest.plain_bytes)} as {size_words(manifest.stored_bytes)}, "
        f"{manifest.content.rows} rows of {len(manifest.content.tables)} tables"
    )


async def verify_object(ctx: StepContext) -> Outcome:
    """What is in the store was read back from end to end, and is what was sent."""
    store, backup = require_store(ctx.ports), await _backup(ctx)
    manifest = await manifests.require_draft(ctx, store, backup)
    key = await tenant_keys.key_version(ctx.ports, backup.tenant_id, manifest.key_version)
    await asyncio.to_thread(backup_object.check_stored, store, manifest, key)
    return Done(f"{size_words(manifest.stored_bytes)} read back")


async def write_manifest(ctx: StepContext) -> Outcome:
    """The manifest has its name: from here on the store holds a backup."""
    store, backup = require_store(ctx.ports), await _backup(ctx)
    manifest = await manifests.require_draft(ctx, store, backup)
    name = naming.manifest_key(backup.tenant_id, backup.id)
    sealed = await asyncio.to_thread(store.get, manifests.draft_key(manifest))
    await asyncio.to_thread(store.put, name, sealed)
    if await asyncio.to_thread(store.get, name) != sealed:
        raise BackupCorrupt("the manifest does not come back from the store as it was written")
    return Done()


async def record(ctx: StepContext) -> Outcome:
    """The catalog knows the backup."""
    store, backup = require_store(ctx.ports), await _backup(ctx)
    if backup.state != "complete":
        manifest = await manifests.read_manifest(ctx, backup)
        async with ctx.catalog_write() as db:
            await backups.complete(db, backup.id, backups.stored(manifest))
    await asyncio.to_thread(manifests.clear_drafts, store, backup)
    return Done(show("bk", backup.id))


async def give_up(ctx: StepContext, db: Connection) -> None:
    """The operation ends without the backup it was to make; for ``abandon``."""
    backup = await backups.of_operation(db, ctx.operation.id)
    if backup is not None:
        await backups.fail_with_operation(db, backup.id)


async def _upload(ctx: StepContext, store: ObjectStore, backup: Backup) -> Manifest:
    async with ctx.catalog_write() as db:
        key = await tenant_keys.active_key(db, ctx.ports, ctx.tenant_id)
    source = await _source(ctx)
    dumped = await _dump(ctx, store, backup, source, key)
    manifest = await manifests.compose(ctx, source, backup, dumped, key.version)
    await manifests.put_draft(store, manifest, key.key)
    return manifest


async def _dump(
    ctx: StepContext, store: ObjectStore, backup: Backup, source: Source, key: TenantKeyMaterial
) -> Dumped:
    server, roles = source.server, source.database.roles
    async with ctx.admin(server) as admin, telling(ctx) as tell:
        password = await backup_login.open_backup_login(admin, roles)
        job = DumpJob(
            address=ctx.address(server).for_login(roles.backup, password),
            database=source.database.name,
            session_name=ctx.session_name,
            program=ctx.ports.programs.dump(server.version_num // _MAJOR),
            store=store,
            object_key=naming.object_key(backup.tenant_id, backup.id, ctx.epoch),
            backup_id=backup.id,
            tenant_id=backup.tenant_id,
            key_version=key.version,
            key=key.key,
        )
        try:
            return await dump.dump_to_store(job, lambda progress: tell(progress.words))
        finally:
            if not admin.is_closed():
                await backup_login.close_backup_login(admin, roles)


async def _source(ctx: StepContext) -> Source:
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        database = await databases.primary(db, ctx.tenant_id)
    server = await ctx.server(database.server_id)
    inside = await ctx.inside(server, database.name)
    fingerprint = await read_fingerprint(inside, role_names(database.roles))
    return Source(tenant, database, server, fingerprint)


async def _backup(ctx: StepContext) -> Backup:
    async with ctx.catalog_read() as db:
        backup = await backups.of_operation(db, ctx.operation.id)
    if backup is None:
        raise TypeError(f"{ctx.operation.kind} has not recorded its backup")
    return backup
