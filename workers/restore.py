"""Restore in place: a proven copy of a backup takes the place of the tenant's database.

Until ``fence_live`` the tenant works on and nothing of it is touched. The replaced database is
kept for ``restore undo``; the DSN stays.
"""

import asyncio

from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import drills, replacing, restorable, sealing
from workers.steps.scratch import (
    check_backup,
    compare_content,
    create_scratch,
    examine_scratch,
    fetch_object,
    load_dump,
)


async def record_drill(ctx: StepContext) -> Outcome:
    """The ledger has a line for this restore: what it read, how long it took, that it is equal."""
    await sealing.begin_line(ctx)
    return await drills.record(ctx)


async def fence_live(ctx: StepContext) -> Outcome:
    """Nobody of the tenant is in its database, nor gets there; poolers hold its clients."""
    return await replacing.fence(ctx)


async def swap_databases(ctx: StepContext) -> Outcome:
    """The restored database is the tenant's; the replaced one is kept and lets nobody in."""
    return await replacing.switch(ctx, ctx.operation.input["scratch"])


async def restore_logins(ctx: StepContext) -> Outcome:
    """The tenant's logins are open on the server of its database, unless it is suspended."""
    return await replacing.let_in(ctx)


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler leads the tenant's clients to the restored database."""
    return await replacing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler."""
    return await replacing.verify_login(ctx)


async def conclude_restore(ctx: StepContext) -> Outcome:
    """Nothing of the restore is left on this machine."""
    await asyncio.to_thread(restorable.spool_file(ctx).unlink, missing_ok=True)
    return Done()


VERB = Verb(
    plan=PLANS["restore"],
    steps=(
        check_backup,
        fetch_object,
        create_scratch,
        load_dump,
        compare_content,
        examine_scratch,
        record_drill,
        fence_live,
        swap_databases,
        restore_logins,
        publish_route,
        verify_login,
        conclude_restore,
    ),
    abandon=drills.give_up,
)
