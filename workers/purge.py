"""Purge: the grace is over; a last backup if one is wanted, then every database is dropped."""

from collections.abc import Awaitable, Callable

from control_plane.catalog import databases, holds, lifecycle, servers
from control_plane.domain.plans import PLANS
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import backing_up


async def prepare_backup(ctx: StepContext) -> Outcome:
    """The last backup is on record, if one is wanted."""
    return await _if_wanted(ctx, lambda ctx: backing_up.prepare(ctx, "final"))


async def upload_dump(ctx: StepContext) -> Outcome:
    """The dump is in the store, encrypted, with the draft of its manifest beside it."""
    return await _if_wanted(ctx, backing_up.upload_dump)


async def verify_object(ctx: StepContext) -> Outcome:
    """What is in the store was read back from end to end, and is what was sent."""
    return await _if_wanted(ctx, backing_up.verify_object)


async def write_manifest(ctx: StepContext) -> Outcome:
    """The manifest has its name: from here on the store holds a backup."""
    return await _if_wanted(ctx, backing_up.write_manifest)


async def record_backup(ctx: StepContext) -> Outcome:
    """The catalog knows the backup."""
    return await _if_wanted(ctx, backing_up.record)


async def give_up_databases(ctx: StepContext) -> Outcome:
    """Every database of the tenant is handed to what drops it, and its place is free."""
    async with ctx.catalog_write() as db:
        await holds.refuse_held(db, ctx.tenant_id)
        live = await databases.find_primary(db, ctx.tenant_id)
        if live is not None:
            await servers.release(db, live.server_id)
        given_up = await lifecycle.databases_of(db, ctx.tenant_id)
        for database in given_up:
            await reclaiming.condemn(db, database, ctx.operation.actor)
    return Done(f"{len(given_up)} databases") if given_up else Skip("there are none")


async def wait_reclaimed(ctx: StepContext) -> Outcome:
    """No database of the tenant is on any server."""
    async with ctx.catalog_read() as db:
        left = await lifecycle.condemned(db, ctx.tenant_id)
    if left:
        return Wait(0.5, f"waiting until {', '.join(left)} is dropped")
    return Done()


async def mark_purged(ctx: StepContext) -> Outcome:
    """It is settled when backups and keys are destroyed."""
    async with ctx.catalog_write() as db:
        at = await lifecycle.mark_purged(db, ctx.tenant_id)
    return Done(f"backups and keys are destroyed after {at:%Y-%m-%d %H:%M:%S} UTC")


async def _if_wanted(
    ctx: StepContext, step: Callable[[StepContext], Awaitable[Outcome]]
) -> Outcome:
    async with ctx.catalog_read() as db:
        known = await lifecycle.ending(db, ctx.tenant_id)
        live = await databases.find_primary(db, ctx.tenant_id)
    if live is None:
        return Skip("it has no database")
    if not known.final_backup:
        return Skip("no final backup is wanted")
    return await step(ctx)


VERB = Verb(
    plan=PLANS["purge"],
    steps=(
        prepare_backup,
        upload_dump,
        verify_object,
        write_manifest,
        record_backup,
        give_up_databases,
        wait_reclaimed,
        mark_purged,
    ),
    abandon=backing_up.give_up,
)
