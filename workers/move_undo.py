"""Undo a move that did not come to its switch: the old server serves, nothing else is left."""

from control_plane.catalog import databases, moves
from control_plane.domain.plans import PLANS
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb
from workers.steps import linking, moving, switching


async def restore_source(ctx: StepContext) -> Outcome:
    """The tenant is let in where it was, and its clients go on."""
    way = await moving.open_way(ctx)
    await switching.go_back(ctx, way, await switching.credentials_of(ctx, way))
    return Done(way.live.server.name)


async def end_links(ctx: StepContext) -> Outcome:
    """No slot, publication, subscription or role of the move is left."""
    way = await moving.open_way(ctx)
    if way.back:
        return Skip("the way back stays")
    await linking.disconnect_all(ctx, way)
    await linking.tidy(ctx, way, way.live)
    return Done()


async def give_up_target(ctx: StepContext) -> Outcome:
    """The new database is on its way out, and its place is free."""
    async with ctx.catalog_write() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        if move is not None and move.switched_at is not None:
            return Skip("the way back stays")
        target = await databases.find(db, move.target_database_id) if move else None
        if target is None or target.purpose == "condemned":
            return Skip("given up already")
        # What was never copied cannot have been switched to, as far as the catalog knows.
        unserved = move is not None and move.copied is None
        await reclaiming.condemn(db, target, ctx.operation.actor, unserved=unserved)
    return Done(target.name)


async def conclude_undo(ctx: StepContext) -> Outcome:
    """The move is over, as if it had not begun; a way back is open as it was."""
    async with ctx.catalog_write() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        if move is None:
            return Skip("it is over")
        if move.switched_at is not None:
            return Skip("the way back stays")
        await moves.change_state(db, move.id, expected=("moving",), wanted="abandoned")
    return Done()


VERB = Verb(
    plan=PLANS["move_undo"],
    steps=(restore_source, end_links, give_up_target, conclude_undo),
)
