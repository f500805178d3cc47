"""Delete: cut a tenant off and begin its grace; until that is over, nothing of it is gone."""

from control_plane.catalog import holds, lifecycle
from control_plane.catalog.lifecycle import Deletion
from control_plane.catalog.pool import Connection
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import closing
from workers.steps.closing import (
    revoke_logins,
    terminate_sessions,
    verify_closed,
    wait_poolers,
    withdraw_route,
)


async def mark_deleting(ctx: StepContext) -> Outcome:
    """The tenant is being deleted, and its grace has begun."""
    wanted = Deletion(
        grace_seconds=int(ctx.operation.input["grace_seconds"]),
        keep_backups_days=int(ctx.operation.input["keep_backups_days"]),
        final_backup=bool(ctx.operation.input["final_backup"]),
    )
    async with ctx.catalog_write() as db:
        await holds.refuse_held(db, ctx.tenant_id)
        ends = await lifecycle.mark_deleting(db, ctx.tenant_id, wanted)
    return Done(f"tenantry tenants undelete brings it back until {ends:%Y-%m-%d %H:%M:%S} UTC")


async def abandon(ctx: StepContext, db: Connection) -> None:
    """The tenant stays what it was; one that was open before is let in again."""
    if ctx.operation.input["reopen"]:
        await closing.let_in_again(ctx, db)


VERB = Verb(
    plan=PLANS["delete"],
    steps=(
        withdraw_route,
        revoke_logins,
        terminate_sessions,
        wait_poolers,
        verify_closed,
        mark_deleting,
    ),
    abandon=abandon,
)
