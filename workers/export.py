"""Export: a signed bundle of all of a tenant's data for the customer, in the store for a while."""

import asyncio

from control_plane.adapters import backup_login, export_bundle
from control_plane.adapters.age_encryption import Recipient
from control_plane.adapters.export_bundle import About, Bundled, ExportJob
from control_plane.adapters.object_stores import clearing
from control_plane.catalog import databases, exports, tenants
from control_plane.catalog.databases import Database
from control_plane.catalog.exports import Export, Uploaded
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.domain.backups import export_folder, export_key
from control_plane.domain.errors import ObjectMissing
from control_plane.domain.names import show
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant
from control_plane.services.backups import require_store
from control_plane.services.signing import signer
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps.telling import size_words, telling

_MAJOR = 10_000


async def prepare_export(ctx: StepContext) -> Outcome:
    """There is a key to sign with, and a recipient to encrypt to."""
    export = await _export(ctx)
    Recipient(export.recipient)
    async with ctx.catalog_write() as db:
        await signer(db, ctx.ports.keyring)
    return Done(show("ex", export.id))


async def upload_bundle(ctx: StepContext) -> Outcome:
    """The bundle is in the store, encrypted to its recipient."""
    store, export = require_store(ctx.ports), await _export(ctx)
    folder = export_folder(export.tenant_id, export.id)
    await asyncio.to_thread(clearing.clear, store, folder)
    key = export_key(export.tenant_id, export.id, ctx.epoch)
    made = await _write(ctx, export, key)
    async with ctx.catalog_write() as db:
        await exports.record_upload(
            db, export.id, Uploaded(key, made.stored_bytes, made.sha256, made.tables, made.rows)
        )
    return Done(f"{made.rows} rows of {made.tables} tables, {size_words(made.stored_bytes)}")


async def verify_bundle(ctx: StepContext) -> Outcome:
    """What is in the store was read back from end to end, and is what was sent."""
    store, export = require_store(ctx.ports), await _export(ctx)
    if export.object_key is None or export.stored_bytes is None or export.sha256 is None:
        raise ObjectMissing("nothing was uploaded; export again")
    sent = Bundled(export.stored_bytes, export.sha256, export.tables or 0, export.rows or 0)
    await asyncio.to_thread(export_bundle.require_stored, store, export.object_key, sent)
    return Done(f"{size_words(export.stored_bytes)} read back")


async def record_export(ctx: StepContext) -> Outcome:
    """The bundle can be fetched until it expires."""
    export = await _export(ctx)
    async with ctx.catalog_write() as db:
        await exports.mark_ready(db, export.id)
    return Done(f"it is deleted after {export.expires_at:%Y-%m-%d %H:%M:%S} UTC")


async def abandon(ctx: StepContext, db: Connection) -> None:
    """There is no bundle; what is in the store of it is deleted soon."""
    await exports.fail_with_operation(db, ctx.operation.id)


async def _export(ctx: StepContext) -> Export:
    async with ctx.catalog_read() as db:
        return await exports.of_operation(db, ctx.operation.id)


async def _write(ctx: StepContext, export: Export, key: str) -> Bundled:
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        database = await databases.primary(db, ctx.tenant_id)
    async with ctx.catalog_write() as db:
        signing = await signer(db, ctx.ports.keyring)
    server = await ctx.server(database.server_id)
    async with ctx.admin(server) as admin, telling(ctx) as tell:
        password = await backup_login.open_backup_login(admin, database.roles)
        job = ExportJob(
            address=ctx.address(server).for_login(database.roles.backup, password),
            database=database.name,
            session_name=ctx.session_name,
            program=ctx.ports.programs.dump(server.version_num // _MAJOR),
            store=require_store(ctx.ports),
            object_key=key,
            recipient=Recipient(export.recipient),
            signer=signing,
            about=_about(export, tenant, database, server),
        )
        try:
            return await export_bundle.write_bundle(job, tell)
        finally:
            if not admin.is_closed():
                await backup_login.close_backup_login(admin, database.roles)


def _about(export: Export, tenant: Tenant, database: Database, server: Server) -> About:
    return About(
        export=show("ex", export.id),
        tenant=show("tn", tenant.id),
        slug=tenant.slug,
        name=tenant.name,
        template=database.template,
        schema_revision=database.schema_revision or "",
        server_version=server.version_num,
    )


VERB = Verb(
    plan=PLANS["export"],
    steps=(prepare_export, upload_bundle, verify_bundle, record_export),
    abandon=abandon,
)
