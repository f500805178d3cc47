"""Unarchive: the archive is restored, compared, and serves the tenant under its old DSN."""

import asyncio

from control_plane.catalog import databases, lifecycle
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb, Wait
from workers.steps import claiming, drills, replacing, restorable, scratch, sealing
from workers.steps import routes as routing
from workers.steps.scratch import (
    compare_content,
    create_scratch,
    examine_scratch,
    fetch_object,
    load_dump,
)


async def check_backup(ctx: StepContext) -> Outcome:
    """The archive is in the store, opens with its key, and fits the server it is to go to."""
    place = await restorable.scratch_of(ctx)
    if place is not None:
        async with ctx.catalog_read() as db:
            leaving = await lifecycle.condemned(db, ctx.tenant_id, place.server_id)
        if leaving:
            # What drops it also drops the roles, unless it sees that they are needed again.
            return Wait(0.2, f"waiting until {', '.join(leaving)} is dropped")
    return await scratch.check_backup(ctx)


async def record_drill(ctx: StepContext) -> Outcome:
    """The ledger has a line for this restore: what it read, how long it took, that it is equal."""
    await sealing.go_on(ctx)
    return await drills.record(ctx)


async def claim_database(ctx: StepContext) -> Outcome:
    """The restored database is the tenant's primary, and only its roles may enter it."""
    return await claiming.claim(ctx)


async def restore_logins(ctx: StepContext) -> Outcome:
    """The tenant's logins are open, with the credentials they had."""
    return await replacing.open_logins(ctx)


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler serves the tenant's alias on both endpoints."""
    return await routing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler."""
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, ctx.tenant_id, "active")
    return await routing.verify_works(ctx, credential)


async def mark_active(ctx: StepContext) -> Outcome:
    """The tenant is active; its archive is a backup like any other."""
    await asyncio.to_thread(restorable.spool_file(ctx).unlink, missing_ok=True)
    async with ctx.catalog_write() as db:
        await lifecycle.mark_unarchived(db, ctx.tenant_id)
    return Done()


VERB = Verb(
    plan=PLANS["unarchive"],
    steps=(
        check_backup,
        fetch_object,
        create_scratch,
        load_dump,
        compare_content,
        examine_scratch,
        record_drill,
        claim_database,
        restore_logins,
        publish_route,
        verify_login,
        mark_active,
    ),
    abandon=drills.give_up,
)
