"""Archive: a tenant becomes a backup that was restored and compared, and gives up its place.

Until ``mark_archived`` nothing is gone: a tenant that was open is let in again when this fails.
"""

from control_plane.catalog import backups, databases, holds, lifecycle, servers, tenants
from control_plane.catalog.pool import Connection
from control_plane.domain.names import show
from control_plane.domain.plans import PLANS
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import backing_up, closing, drills
from workers.steps.backing_up import upload_dump, verify_object, write_manifest
from workers.steps.closing import (
    revoke_logins,
    terminate_sessions,
    verify_closed,
    wait_poolers,
    withdraw_route,
)
from workers.steps.scratch import (
    check_backup,
    compare_content,
    create_scratch,
    drop_scratch,
    examine_scratch,
    fetch_object,
    load_dump,
)


async def prepare_backup(ctx: StepContext) -> Outcome:
    """The last backup is on record, never to be pruned, and there is a key to seal it with."""
    return await backing_up.prepare(ctx, "archive", pinned=True)


async def record_backup(ctx: StepContext) -> Outcome:
    """The catalog knows the backup."""
    return await backing_up.record(ctx)


async def record_drill(ctx: StepContext) -> Outcome:
    """The ledger has a line for this restore: what it read, how long it took, that it is equal."""
    return await drills.record(ctx)


async def mark_archived(ctx: StepContext) -> Outcome:
    """The tenant consists of its backup; its databases are given up, and its place is free."""
    async with ctx.catalog_write() as db:
        backup = await backups.of_operation(db, ctx.operation.id)
        if backup is None or backup.verified_at is None:
            raise TypeError("the backup that was to be the archive was not verified")
        await holds.refuse_held(db, ctx.tenant_id)
        tenant = await tenants.get(db, ctx.tenant_id)
        if tenant.state != "archived":
            await lifecycle.mark_archived(db, tenant.id, backup.id)
            await _give_up_databases(ctx, db)
    return Done(f"kept as {show('bk', backup.id)}")


async def abandon(ctx: StepContext, db: Connection) -> None:
    """The tenant stays what it was; one that was open before is let in again."""
    backup = await backups.of_operation(db, ctx.operation.id)
    if backup is not None and backup.state in ("complete", "corrupt"):
        await drills.give_up(ctx, db)
        await lifecycle.unpin(db, backup.id)
    await backing_up.give_up(ctx, db)
    if ctx.operation.input["reopen"]:
        await closing.let_in_again(ctx, db)


async def _give_up_databases(ctx: StepContext, db: Connection) -> None:
    live = await databases.primary(db, ctx.tenant_id)
    await servers.release(db, live.server_id)
    for database in await lifecycle.databases_of(db, ctx.tenant_id):
        await reclaiming.condemn(db, database, ctx.operation.actor)


VERB = Verb(
    plan=PLANS["archive"],
    steps=(
        withdraw_route,
        revoke_logins,
        terminate_sessions,
        wait_poolers,
        verify_closed,
        prepare_backup,
        upload_dump,
        verify_object,
        write_manifest,
        record_backup,
        check_backup,
        fetch_object,
        create_scratch,
        load_dump,
        compare_content,
        examine_scratch,
        record_drill,
        drop_scratch,
        mark_archived,
    ),
    abandon=abandon,
)
