"""Replication of a move in one direction, begun and ended over both servers."""

from control_plane.adapters import replication, subscriptions
from control_plane.catalog.moves import Move
from control_plane.domain.moves import Link
from control_plane.services import move_links
from workers.engine.step import StepContext
from workers.steps import moving
from workers.steps.moving import End, Way


async def connect(
    ctx: StepContext, link: Link, *, sender: End, receiver: End, begin_lsn: str | None = None
) -> None:
    """Changes flow from one to the other; publication and slot are there.

    With ``begin_lsn`` only what is committed after that position of the sender's WAL.
    """
    inside = await moving.inside(ctx, receiver)
    if await subscriptions.is_enabled(inside, link):
        return
    async with ctx.admin(sender.server) as admin:
        password = await replication.ensure_sender(admin, link, sender.database.name)
    reads = subscriptions.Subscription(ctx.address(sender.server), sender.database.name, password)
    roles, version_num = receiver.database.roles, receiver.server.version_num
    await subscriptions.subscribe(inside, link, roles, reads, version_num)
    if begin_lsn is not None:
        async with ctx.admin(receiver.server) as admin:
            await subscriptions.begin_at(admin, link, begin_lsn)
    await subscriptions.enable(inside, link)


async def redial(ctx: StepContext, way: Way) -> None:
    """Changes flow again, if they do not because the server that serves has another address now."""
    async with ctx.admin(way.live.server) as admin:
        await move_links.redial(
            admin,
            await moving.inside(ctx, way.coming),
            way.link,
            ctx.address(way.live.server),
            way.live.database.name,
        )


async def disconnect(ctx: StepContext, link: Link, *, sender: End, receiver: End) -> None:
    """Nothing flows any more, and neither server has anything left that did."""
    # The sender first: what the slot keeps fills its disk, whether the receiver answers or not.
    async with ctx.admin(sender.server) as admin:
        await replication.drop_slot(admin, link)
        await replication.drop_sender(admin, link, sender.database.name)
    if await _there(ctx, sender):
        await replication.drop_publication(await moving.inside(ctx, sender), link)
    if await _there(ctx, receiver):
        await subscriptions.unsubscribe(await moving.inside(ctx, receiver), link)


async def disconnect_all(ctx: StepContext, way: Way) -> None:
    """Both directions of the move, whichever were begun."""
    source, target = (way.coming, way.live) if way.back else (way.live, way.coming)
    move: Move = way.move
    await disconnect(ctx, move.link, sender=source, receiver=target)
    await disconnect(ctx, move.way_back, sender=target, receiver=source)


async def tidy(ctx: StepContext, way: Way, end: End) -> None:
    """The database that stays: tables without a key are told as before, no marker is left."""
    if await _there(ctx, end):
        inside = await moving.inside(ctx, end)
        await replication.reset_identity(inside, way.move.keyless)
        await replication.forget_markers(inside)


async def _there(ctx: StepContext, end: End) -> bool:
    async with ctx.admin(end.server) as admin:
        return await replication.database_exists(admin, end.database.name)
