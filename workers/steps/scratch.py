"""A backup restored into a database of its own: fetched, loaded, compared, examined, dropped.

Shared by every verb that restores. Nothing is decrypted before all of it was proven, and nothing
of it runs with more rights than the login that loads it.
"""

import asyncio
import threading
from collections.abc import Callable

from control_plane.adapters import (
    backup_login,
    backup_object,
    load,
    restore_preflight,
    scratch_database,
    scratch_examination,
    tenant_roles,
)
from control_plane.adapters.database_content import read_content
from control_plane.adapters.load import LoadJob
from control_plane.catalog import databases, replacements
from control_plane.domain.backups import differences
from control_plane.domain.errors import ContentMismatch, ServerUnsuitable, StoreUnavailable
from control_plane.domain.names import show
from control_plane.services.backups import require_store
from workers.engine.step import Done, Outcome, Skip, StepContext
from workers.steps import databases as making
from workers.steps import manifests, restorable
from workers.steps.restorable import Opened, Restorable
from workers.steps.telling import Tell, size_words, telling

_MAJOR = 10_000
_JOBS = 2
_SHOWN_DIFFERENCES = 10


async def check_backup(ctx: StepContext) -> Outcome:
    """The backup is in the store, opens with its key, and fits the server it is to go to."""
    backup = await restorable.chosen(ctx)
    async with restorable.judged(ctx, backup):
        manifest = await manifests.read_manifest(ctx, backup)
        await asyncio.to_thread(backup_object.require_stored, require_store(ctx.ports), manifest)
    server = await restorable.place(ctx, manifest)
    ctx.ports.programs.restore(server.version_num // _MAJOR)
    async with ctx.admin(server) as admin:
        obstacles = await restore_preflight.obstacles(admin, manifest, server.version_num)
    if obstacles:
        raise ServerUnsuitable(f"{server.name} cannot take this backup: {'; '.join(obstacles)}")
    return Done(f"{show('bk', backup.id)} of {manifest.snapshot_at:%Y-%m-%d %H:%M:%S} UTC")


async def fetch_object(ctx: StepContext) -> Outcome:
    """The object is on this machine, still encrypted, and every byte of it is proven."""
    what = await restorable.opened(ctx)
    await asyncio.to_thread(restorable.sweep_spool, ctx, await restorable.live_operations(ctx))
    async with telling(ctx) as tell:
        await _fetch(ctx, what, tell)
    return Done(size_words(what.manifest.stored_bytes))


async def create_scratch(ctx: StepContext) -> Outcome:
    """An empty database is on record and on its server, and only its loader may enter it."""
    await restorable.record_scratch(ctx)
    what = await restorable.begun(ctx)
    async with ctx.admin(what.server) as admin:
        await tenant_roles.ensure_role_set(admin, what.roles, what.limits)
    await _create(ctx, what)
    return Done(f"database {what.scratch.name} on {what.server.name}")


async def load_dump(ctx: StepContext) -> Outcome:
    """Everything in the backup is in the scratch database, loaded by a login without rights."""
    what = await restorable.begun(ctx)
    async with telling(ctx) as tell:
        await _fetch(ctx, what, tell)
        await _create(ctx, what)
        privileges = await _load(ctx, what, tell)
    inside = await ctx.inside(what.server, what.scratch.name)
    await scratch_database.dismiss_loader(
        inside, what.scratch.name, what.loader, what.roles, privileges
    )
    return Done(size_words(what.manifest.plain_bytes))


async def compare_content(ctx: StepContext) -> Outcome:
    """The scratch database holds, table for table and row for row, what the manifest says."""
    what = await restorable.begun(ctx)
    async with ctx.admin(what.server) as admin, telling(ctx) as tell:
        await scratch_database.admit_backup_login(admin, what.scratch.name, what.roles)
        password = await backup_login.open_backup_login(admin, what.roles)
        login = ctx.address(what.server).for_login(what.roles.backup, password)
        try:
            found = await read_content(
                login,
                what.scratch.name,
                ctx.session_name,
                snapshot=None,
                at_once=_JOBS,
                told=tell,
            )
        finally:
            if not admin.is_closed():
                await backup_login.close_backup_login(admin, what.roles)
        await scratch_database.refuse_backup_login(admin, what.scratch.name, what.roles)
    unequal = differences(what.manifest.content, found)
    async with restorable.judged(ctx, what.backup):
        if unequal:
            more = f" and {len(unequal) - _SHOWN_DIFFERENCES} more" * (
                len(unequal) > _SHOWN_DIFFERENCES
            )
            raise ContentMismatch("; ".join(unequal[:_SHOWN_DIFFERENCES]) + more)
    return Done(f"{found.rows} rows of {len(found.tables)} tables are equal")


async def examine_scratch(ctx: StepContext) -> Outcome:
    """Schema, indexes, owners and privileges are what they must be; nobody foreign may enter."""
    what = await restorable.begun(ctx)
    inside = await ctx.inside(what.server, what.scratch.name)
    found = await scratch_examination.examine(inside, what.manifest, what.roles)
    if found.problems:
        raise ContentMismatch("; ".join(found.problems[:_SHOWN_DIFFERENCES]))
    unread = "" if found.checked else "; indexes not read: amcheck wants a superuser"
    return Done(f"revision {what.manifest.schema_revision}{unread}")


async def drop_scratch(ctx: StepContext) -> Outcome:
    """The scratch database is gone, and so are roles that were made for it alone."""
    await asyncio.to_thread(restorable.spool_file(ctx).unlink, missing_ok=True)
    scratch = await restorable.scratch_of(ctx)
    if scratch is None:
        return Skip("already gone")
    server = await ctx.server(scratch.server_id)
    async with ctx.catalog_read() as db:
        needed = await databases.role_sets_beside(db, scratch)
    await making.require_unserved(ctx, server, scratch.name)
    async with ctx.admin(server) as admin:
        loader = scratch_database.loader_of(scratch.name)
        identifier = server.system_identifier
        await scratch_database.drop_scratch(admin, scratch.name, loader, identifier)
        if scratch.role_set_id not in needed:
            await tenant_roles.drop_role_set(admin, scratch.roles, identifier)
    async with ctx.catalog_write() as db:
        await databases.forget(db, scratch)
    return Done(scratch.name)


async def _fetch(ctx: StepContext, what: Opened, tell: Tell) -> None:
    """Where the object is on this machine already it stays; another machine may have fetched it."""
    store, total = require_store(ctx.ports), what.manifest.stored_bytes

    def fetch(stop: threading.Event) -> None:
        backup_object.fetch(
            store,
            what.manifest,
            what.key,
            restorable.spool_file(ctx),
            lambda size: tell(f"{size_words(size)} of {size_words(total)} fetched"),
            stop,
        )

    async with restorable.judged(ctx, what.backup):
        await _stoppable(fetch)


async def _stoppable(work: Callable[[threading.Event], None]) -> None:
    """Run ``work`` in a thread; when this task is cancelled it is told to stop, and waited for."""
    stop = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(work, stop))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({running})
        if not running.cancelled() and not isinstance(running.exception(), StoreUnavailable):
            running.result()
        raise


async def _create(ctx: StepContext, what: Restorable) -> None:
    """An empty database, whatever was there; sessions in the one before are of no use."""
    await making.require_unserved(ctx, what.server, what.scratch.name)
    ctx.leave()
    async with ctx.admin(what.server) as admin:
        await scratch_database.create_scratch(
            admin,
            what.scratch.name,
            what.manifest,
            what.roles,
            what.loader,
            what.server.system_identifier,
        )
    inside = await ctx.inside(what.server, what.scratch.name)
    await scratch_database.furnish_scratch(inside, what.manifest, what.roles, what.loader)


async def _load(ctx: StepContext, what: Restorable, tell: Tell) -> list[str]:
    """Load the archive; what is left to be granted by an administrator."""
    async with ctx.admin(what.server) as admin:
        password = await scratch_database.open_loader(admin, what.loader)
        job = LoadJob(
            spool=restorable.spool_file(ctx),
            manifest=what.manifest,
            key=what.key,
            address=ctx.address(what.server).for_login(what.loader, password),
            database=what.scratch.name,
            session_name=ctx.session_name,
            program=ctx.ports.programs.restore(what.server.version_num // _MAJOR),
            jobs=_JOBS,
        )
        try:
            async with restorable.judged(ctx, what.backup):
                privileges = await load.load_archive(job, tell)
        finally:
            if not admin.is_closed():
                await scratch_database.close_loader(admin, what.loader)
    async with ctx.catalog_write() as db:
        await replacements.describe(
            db,
            what.scratch.id,
            template=what.manifest.template,
            content=what.manifest.template_fingerprint,
            revision=what.manifest.schema_revision,
        )
    return privileges
