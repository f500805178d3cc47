"""Undo a restore: the database that was replaced takes its place back; the other one is kept."""

from control_plane.catalog import replacements
from control_plane.catalog.pool import Connection
from control_plane.domain.plans import PLANS
from workers.engine.step import Outcome, StepContext, Verb
from workers.steps import replacing


async def fence_live(ctx: StepContext) -> Outcome:
    """Nobody of the tenant is in its database, nor gets there; poolers hold its clients."""
    return await replacing.fence(ctx)


async def swap_databases(ctx: StepContext) -> Outcome:
    """The database that had been replaced is the tenant's again; the other one is kept."""
    return await replacing.switch(ctx, ctx.operation.input["kept"])


async def restore_logins(ctx: StepContext) -> Outcome:
    """The tenant's logins are open on the server of its database, unless it is suspended."""
    return await replacing.let_in(ctx)


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler leads the tenant's clients to its database."""
    return await replacing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler."""
    return await replacing.verify_login(ctx)


async def abandon(ctx: StepContext, db: Connection) -> None:
    """Give back a place that was taken on the server of the kept database."""
    await replacements.let_go_of_place(db, ctx.tenant_id)


VERB = Verb(
    plan=PLANS["restore_undo"],
    steps=(
        fence_live,
        swap_databases,
        restore_logins,
        publish_route,
        verify_login,
    ),
    abandon=abandon,
)
