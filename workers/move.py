"""Move: a tenant's database to another server while it is being written to.

Until the switch everything can be taken back, and is, when the move fails or is cancelled; from the
switch on changes flow back to the old server, until the move is reversed or finished.
"""

import msgspec

from control_plane.adapters import clock, replication, tenant_roles, tenant_upkeep
from control_plane.adapters.move_survey import read_target
from control_plane.adapters.move_target import analyze, ensure_marker
from control_plane.catalog import databases, moves, operations
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import ContentMismatch, ServerUnsuitable
from control_plane.domain.moves import Method, Survey, storage_of, survey
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import comparing, copying, linking, moving, sealing, switching
from workers.steps import databases as making
from workers.steps import routes as routing

_OFFLINE = "moved offline"
_LAG_SECONDS = 1.0


async def preflight(ctx: StepContext) -> Outcome:
    """Nothing stands in the way, and it is known how the move is done."""
    way = await moving.way_of(ctx)
    facts = await moving.facts_of(ctx, way.live)
    async with ctx.admin(way.coming.server) as admin:
        target = await read_target(admin, facts.locale.collate)
    facts = msgspec.structs.replace(facts, may=await moving.may_of(ctx, way.live))
    target = msgspec.structs.replace(
        target,
        storage=storage_of(way.coming.server.labels),
        may=await moving.may_of(ctx, way.coming),
    )
    found = survey(facts, target)
    method = _choose(ctx, found)
    keyless = [table.name for table in facts.tables if not table.keyed]
    async with ctx.catalog_write() as db:
        await moves.choose(db, way.move.id, method, keyless if method == "online" else [])
    words = "; ".join((*found.offline_reasons, *found.advice))
    return Done(f"{method}{': ' if words else ''}{words}")


async def create_roles(ctx: StepContext) -> Outcome:
    """The tenant's roles exist on the new server, and nobody can log in there."""
    way = await moving.way_of(ctx)
    done = await making.make_roles(ctx, way.coming.database, way.tenant.limits.login)
    async with ctx.admin(way.coming.server) as admin:
        for login in way.coming.database.roles.logins:
            await tenant_roles.close_login(admin, login)
    return done


async def prepare_source(ctx: StepContext) -> Outcome:
    """The old server offers the changes of every table."""
    way = await moving.way_of(ctx)
    if not way.online:
        return Skip(_OFFLINE)
    inside = await moving.inside(ctx, way.live)
    await ensure_marker(inside, way.live.database.roles)
    tables = await moving.tables_of(ctx, way.live)
    await replication.publish(inside, way.link, tables)
    return Done(f"{len(tables)} tables")


async def close_source(ctx: StepContext) -> Outcome:
    """When rows cannot be followed, nobody writes while they are copied."""
    way = await moving.way_of(ctx)
    if way.online:
        return Skip("clients go on")
    inside = await moving.inside(ctx, way.live)
    for login in way.live.database.roles.logins:
        await tenant_roles.close_login(inside, login)
    ended = await tenant_roles.terminate_login_sessions(inside, way.live.database.roles.logins)
    # What sealing writes has to be there before rows are copied.
    await sealing.seal(ctx, way.live)
    return Done(f"closed to the tenant until the switch; {ended} sessions ended")


async def copy_data(ctx: StepContext) -> Outcome:
    """The new database holds everything that was committed at one moment."""
    return await copying.copy(ctx, await moving.way_of(ctx))


async def follow_changes(ctx: StepContext) -> Outcome:
    """What was committed since then is applied, and goes on being; the planner knows the tables."""
    way = await moving.way_of(ctx)
    if not way.online:
        await analyze(await moving.inside(ctx, way.coming))
        return Skip(_OFFLINE)
    await linking.connect(ctx, way.link, sender=way.live, receiver=way.coming)
    await analyze(await moving.inside(ctx, way.coming))
    return Done(way.link.name)


async def wait_caught_up(ctx: StepContext) -> Outcome:
    """A change is on the new server in a moment."""
    way = await moving.way_of(ctx)
    if not way.online:
        return Skip(_OFFLINE)
    late = await switching.arrival_ms(ctx, way)
    if late is None:
        await linking.redial(ctx, way)
        kept = await copying.guard_wal(ctx, way, await moving.facts_of(ctx, way.live))
        return Wait(_LAG_SECONDS, f"{kept:,} bytes of WAL are still to be applied")
    return Done(f"a change arrives within {late:.0f} ms")


async def compare_data(ctx: StepContext) -> Outcome:
    """Every table was compared, and is the same on both servers."""
    return await comparing.compare(ctx, await moving.way_of(ctx))


async def prepare_way_back(ctx: StepContext) -> Outcome:
    """The new server keeps its changes for the old one; reports are fresh, the audit log sealed."""
    way = await moving.way_of(ctx)
    coming = await moving.inside(ctx, way.coming)
    await tenant_upkeep.refresh_views(coming, way.coming.database.roles)
    if not way.online:
        return Skip(f"{_OFFLINE}: changes will not flow back")
    await sealing.seal(ctx, way.live)
    tables = await moving.tables_of(ctx, way.coming)
    await replication.publish(coming, way.move.way_back, tables)
    await replication.ensure_slot(coming, way.move.way_back)
    return Done(way.move.way_back.name)


async def switch_route(ctx: StepContext) -> Outcome:
    """The tenant is served by the new server, and its clients have waited for a moment."""
    return await switching.switch(ctx, await moving.way_of(ctx))


async def compare_again(ctx: StepContext) -> Outcome:
    """What the new server began with is what the old one ended with."""
    return await comparing.compare_at_switch(ctx, await moving.way_of(ctx))


async def end_copy(ctx: StepContext) -> Outcome:
    """Nothing flows to the new server any more, and nothing is left of what did."""
    way = await moving.way_of(ctx)
    await linking.disconnect(ctx, way.link, sender=way.live, receiver=way.coming)
    await sealing.after_switch(ctx, way.coming)
    return Done()


async def start_way_back(ctx: StepContext) -> Outcome:
    """Every change on the new server flows to the old one, from the first after the switch."""
    way = await moving.way_of(ctx)
    if not way.online:
        return Skip(_OFFLINE)
    await linking.connect(
        ctx,
        way.move.way_back,
        sender=way.coming,
        receiver=way.live,
        begin_lsn=way.move.begin_lsn,
    )
    return Done(way.move.way_back.name)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler, at the new server."""
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, ctx.tenant_id, "active")
    return await routing.verify_works(ctx, credential)


async def conclude_move(ctx: StepContext) -> Outcome:
    """The move can be reversed or finished; whatever differed at the switch is told.

    Raises:
        ContentMismatch: something did; the old server still has what it had.
    """
    way = await moving.way_of(ctx)
    async with ctx.catalog_write() as db:
        await moves.change_state(db, way.move.id, expected=("switched",), wanted="reversible")
    found = way.move.compared_at_switch
    if found is not None and found.differences:
        remedy = f"; go back with: tenantry move reverse {way.tenant.slug}" if way.online else ""
        raise ContentMismatch(f"at the switch {'; '.join(found.differences)}{remedy}")
    return Done(f"tenantry move finish {way.tenant.slug} gives the old database up")


async def abandon(ctx: StepContext, db: Connection) -> None:
    """Before the switch: everything goes back, by an operation of its own."""
    move = await moves.get(db, ctx.operation.id)
    if move.state != "moving":
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


def _choose(ctx: StepContext, found: Survey) -> Method:
    if found.refusals:
        raise ServerUnsuitable("; ".join(found.refusals))
    if not found.offline_reasons:
        return "online"
    if not ctx.operation.input.get("offline"):
        reasons = "; ".join(found.offline_reasons)
        raise ServerUnsuitable(f"it can only be moved while it is closed (--offline): {reasons}")
    return "offline"


VERB = Verb(
    plan=PLANS["move"],
    steps=(
        preflight,
        create_roles,
        prepare_source,
        close_source,
        copy_data,
        follow_changes,
        wait_caught_up,
        compare_data,
        prepare_way_back,
        switch_route,
        compare_again,
        end_copy,
        start_way_back,
        verify_login,
        conclude_move,
    ),
    abandon=abandon,
)
