"""Undelete: within its grace a tenant is what it was before, with the same DSN."""

from control_plane.catalog import databases, lifecycle
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb
from workers.steps import replacing
from workers.steps import routes as routing


async def restore_logins(ctx: StepContext) -> Outcome:
    """The tenant's logins are open again, if they were before its deletion."""
    return await _was_closed(ctx) or await replacing.open_logins(ctx)


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler serves the tenant again, if it was served before its deletion."""
    return await _was_closed(ctx) or await routing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler, if it did before its deletion."""
    closed = await _was_closed(ctx)
    if closed is not None:
        return closed
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, ctx.tenant_id, "active")
    return await routing.verify_works(ctx, credential)


async def mark_undeleted(ctx: StepContext) -> Outcome:
    """The tenant is active, suspended or archived, as it was before its deletion."""
    async with ctx.catalog_write() as db:
        state = await lifecycle.mark_undeleted(db, ctx.tenant_id)
    return Done(state)


async def _was_closed(ctx: StepContext) -> Skip | None:
    async with ctx.catalog_read() as db:
        known = await lifecycle.ending(db, ctx.tenant_id)
    if known.deleting_from == "active":
        return None
    return Skip(f"the tenant was {known.deleting_from}")


VERB = Verb(
    plan=PLANS["undelete"],
    steps=(restore_logins, publish_route, verify_login, mark_undeleted),
)
