"""Reverse a move: the same switch in the other direction, and no row written since is lost."""

from control_plane.adapters import clock, replication, tenant_upkeep
from control_plane.catalog import databases, moves, operations
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import ContentMismatch
from control_plane.domain.plans import PLANS
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import comparing, copying, linking, moving, sealing, switching
from workers.steps import routes as routing

_LAG_SECONDS = 1.0


async def check_way_back(ctx: StepContext) -> Outcome:
    """Changes flow to the old server; its reports are fresh, the audit log is sealed."""
    way = await moving.way_back_of(ctx)
    live, coming = await moving.inside(ctx, way.live), await moving.inside(ctx, way.coming)
    await replication.require_healthy(live, coming, way.link)
    await tenant_upkeep.refresh_views(coming, way.coming.database.roles)
    await sealing.seal(ctx, way.live)
    return Done(way.link.name)


async def wait_caught_up(ctx: StepContext) -> Outcome:
    """A change is on the old server in a moment."""
    way = await moving.way_back_of(ctx)
    late = await switching.arrival_ms(ctx, way)
    if late is None:
        await linking.redial(ctx, way)
        kept = await copying.guard_wal(ctx, way, await moving.facts_of(ctx, way.live))
        return Wait(_LAG_SECONDS, f"{kept:,} bytes of WAL are still to be applied")
    return Done(f"a change arrives within {late:.0f} ms")


async def compare_data(ctx: StepContext) -> Outcome:
    """Every table was compared, and is the same on both servers."""
    return await comparing.compare(ctx, await moving.way_back_of(ctx))


async def switch_route(ctx: StepContext) -> Outcome:
    """The tenant is served by the old server again, and its clients have waited for a moment."""
    return await switching.switch(ctx, await moving.way_back_of(ctx))


async def compare_again(ctx: StepContext) -> Outcome:
    """What the old server began with is what the new one ended with.

    Raises:
        ContentMismatch: it is not; both databases are kept as they are.
    """
    way = await moving.way_back_of(ctx)
    done = await comparing.compare_at_switch(ctx, way)
    async with ctx.catalog_read() as db:
        found = (await moves.get(db, way.move.id)).compared_at_switch
    if found is not None and found.differences:
        raise ContentMismatch("; ".join(found.differences))
    return done


async def end_links(ctx: StepContext) -> Outcome:
    """No slot, publication, subscription or role of the move is left."""
    way = await moving.way_back_of(ctx)
    await linking.disconnect_all(ctx, way)
    await linking.tidy(ctx, way, way.coming)
    await sealing.after_switch(ctx, way.coming)
    return Done()


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler, at the old server."""
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, ctx.tenant_id, "active")
    return await routing.verify_works(ctx, credential)


async def give_up_target(ctx: StepContext) -> Outcome:
    """The database that was moved into is on its way out, and its place is free."""
    async with ctx.catalog_write() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        target = await databases.find(db, move.target_database_id) if move else None
        if target is None or target.purpose == "condemned":
            return Skip("given up already")
        await reclaiming.condemn(db, target, ctx.operation.actor)
    return Done(target.name)


async def conclude_reverse(ctx: StepContext) -> Outcome:
    """The move is over; the tenant is where it was before it."""
    async with ctx.catalog_write() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        if move is None:
            return Skip("it is over")
        await moves.change_state(db, move.id, expected=("switched",), wanted="reversed")
    return Done()


async def abandon(ctx: StepContext, db: Connection) -> None:
    """Before the switch: the new server goes on serving."""
    move = await moves.open_one(db, ctx.tenant_id)
    if move is None or move.state != "reversible":
        return
    await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["move_undo"],
            subject=ctx.operation.subject,
            actor=ctx.operation.actor,
            tenant_id=move.tenant_id,
        ),
    )


VERB = Verb(
    plan=PLANS["move_reverse"],
    steps=(
        check_way_back,
        wait_caught_up,
        compare_data,
        switch_route,
        compare_again,
        end_links,
        verify_login,
        give_up_target,
        conclude_reverse,
    ),
    abandon=abandon,
)
