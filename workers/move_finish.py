"""Finish a move: nothing flows back any more, and the old database goes."""

from control_plane.catalog import databases, moves
from control_plane.domain.plans import PLANS
from control_plane.services import reclaiming
from control_plane.services.moves import require_backup
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb
from workers.steps import linking, moving


async def check_backup(ctx: StepContext) -> Outcome:
    """A backup of the new database was verified, or it was said that none is wanted."""
    if ctx.operation.input.get("without_backup"):
        return Skip("no backup was wanted")
    async with ctx.catalog_read() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        if move is None:
            return Skip("it is over")
        return Done(await require_backup(db, move))


async def end_links(ctx: StepContext) -> Outcome:
    """No slot, publication, subscription or role of the move is left."""
    way = await moving.open_way(ctx)
    await linking.disconnect_all(ctx, way)
    await linking.tidy(ctx, way, way.live)
    return Done()


async def give_up_source(ctx: StepContext) -> Outcome:
    """The old database is on its way out, and its place is free."""
    async with ctx.catalog_write() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        source = await databases.find(db, move.source_database_id) if move else None
        if source is None or source.purpose == "condemned":
            return Skip("given up already")
        await reclaiming.condemn(db, source, ctx.operation.actor)
    return Done(source.name)


async def conclude_finish(ctx: StepContext) -> Outcome:
    """The move is over."""
    async with ctx.catalog_write() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        if move is None:
            return Skip("it is over")
        await moves.change_state(
            db, move.id, expected=("switched", "reversible"), wanted="finished"
        )
    return Done()


VERB = Verb(
    plan=PLANS["move_finish"],
    steps=(check_backup, end_links, give_up_source, conclude_finish),
)
