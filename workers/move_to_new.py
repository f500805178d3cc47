"""Move to a new server: one is made for the tenant, then the tenant moves there.

Both are operations of their own, recorded under ids that the request chose: whoever carries this
one on finds them. The tenant is free for other work until its move begins.
"""

from contextlib import suppress

from control_plane.catalog import operations
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound, OperationInProgress, WrongState
from control_plane.domain.plans import PLANS
from control_plane.services import moving_to_new
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import chaining

_BUSY_SECONDS = 2.0


async def wait_server(ctx: StepContext) -> Outcome:
    """The new server is enrolled, and holds nobody."""
    return await chaining.wait_for(ctx, moving_to_new.chain_of(ctx.operation).creation)


async def begin_move(ctx: StepContext) -> Outcome:
    """The tenant is moving to its new server."""
    chain = moving_to_new.chain_of(ctx.operation)
    try:
        async with ctx.catalog_write() as db:
            if await _exists(db, chain):
                return Skip("it has begun")
            operation = await moving_to_new.begin(db, chain, ctx.operation.actor)
    except OperationInProgress as error:
        return Wait(_BUSY_SECONDS, error.message)
    await ctx.ports.doorbell.ring(operation.id, operation.queue)
    return Done(chain.server)


async def wait_moved(ctx: StepContext) -> Outcome:
    """The tenant is on its new server."""
    return await chaining.wait_for(ctx, moving_to_new.chain_of(ctx.operation).move)


async def abandon(ctx: StepContext, db: Connection) -> None:
    """Cancelled while the server is being made, its creation is cancelled, too."""
    operation = await operations.get(db, ctx.operation.id)
    if operation.state == "cancelled":
        with suppress(WrongState):
            creation = moving_to_new.chain_of(operation).creation
            await operations.request_cancel(db, creation, PLANS["create_server"])


async def _exists(db: Connection, chain: moving_to_new.Chain) -> bool:
    try:
        await operations.get(db, chain.move)
    except NotFound:
        return False
    return True


VERB = Verb(
    plan=PLANS["move_to_new"],
    steps=(wait_server, begin_move, wait_moved),
    abandon=abandon,
)
