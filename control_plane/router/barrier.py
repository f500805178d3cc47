"""For workers: make every pooler of a cell hold one tenant's clients, or none of them.

It fails closed: a pooler that does not answer, dead ones included, ends the pause everywhere.
Only its removal takes a pooler out of the count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog import poolers, routes
from control_plane.catalog.pool import Catalog
from control_plane.catalog.routes import PauseScope
from control_plane.domain.errors import NotFound, PoolerUnavailable
from control_plane.router.waiting import rest

_FIRST_LOOK_SECONDS = 0.002
_LOOK_SECONDS = 0.01


class Hold(msgspec.Struct, frozen=True):
    """A pause of at most ``seconds``, to be acknowledged by all within ``answer_within``."""

    operation_id: UUID
    epoch: int
    seconds: float
    answer_within: float
    scope: PauseScope = "all"


async def pause_everywhere(
    catalog: Catalog,
    tenant_id: UUID,
    *,
    operation_id: UUID,
    epoch: int,
    seconds: float,
    answer_within: float | None = None,
) -> None:
    """Hold the tenant's clients in every pooler of its cell, for at most ``seconds`` from now.

    Waits for all acknowledgements, up to ``answer_within`` seconds (``seconds`` if not given).
    The poolers resume by themselves when ``seconds`` are over, whatever happens to the caller.

    Raises:
        NotFound, PoolerUnavailable, CatalogUnavailable: see ``hold_everywhere``.
    """
    limit = seconds if answer_within is None else min(answer_within, seconds)
    await hold_everywhere(catalog, tenant_id, Hold(operation_id, epoch, seconds, limit))


async def hold_everywhere(catalog: Catalog, tenant_id: UUID, wanted: Hold) -> None:
    """``pause_everywhere``, and which clients it is about.

    Raises:
        NotFound: the tenant has no published route.
        PoolerUnavailable: a pooler did not acknowledge; every other one resumes.
        CatalogUnavailable: the catalog does not answer; the poolers resume by themselves.
    """
    operation_id, epoch = wanted.operation_id, wanted.epoch
    async with catalog.transaction() as db:
        route = await routes.find(db, tenant_id)
        if route is None or route.state != "published":
            raise NotFound("this tenant has no published route to pause")
        await routes.want_pause(
            db,
            route,
            operation_id=operation_id,
            epoch=epoch,
            seconds=wanted.seconds,
            scope=wanted.scope,
        )
    try:
        await _all_hold(catalog, tenant_id, operation_id, epoch, wanted.answer_within)
    except (PoolerUnavailable, asyncio.CancelledError):
        await resume_everywhere(catalog, tenant_id, operation_id=operation_id, epoch=epoch)
        raise


async def resume_everywhere(
    catalog: Catalog, tenant_id: UUID, *, operation_id: UUID, epoch: int | None = None
) -> bool:
    """End this operation's pause; whether it still was in force.

    Commit and abort are the same here: a pooler first takes the route as it is, then resumes.
    With ``epoch`` a pause that a later worker of the operation began stays.

    Raises:
        CatalogUnavailable: the catalog does not answer; the poolers resume by themselves.
    """
    async with catalog.transaction() as db:
        return await routes.end_pause(db, tenant_id, operation_id=operation_id, epoch=epoch)


async def wait_served(
    catalog: Catalog, cell_id: UUID, version: int, *, seconds: float, need: Literal["all", "alive"]
) -> list[str]:
    """Names of the poolers that do not serve this version of the cell after ``seconds``.

    Returns at once when there are none. ``alive`` leaves out poolers without a sign of life.

    Raises:
        CatalogUnavailable: the catalog does not answer.
    """

    async def missing() -> list[str]:
        async with catalog.connection() as db:
            late = await poolers.behind(db, cell_id, version)
        return [pooler.name for pooler in late if need == "all" or pooler.alive]

    return await _until_none(missing, seconds)


async def _all_hold(
    catalog: Catalog, tenant_id: UUID, operation_id: UUID, epoch: int, seconds: float
) -> None:
    async def missing() -> list[str]:
        async with catalog.connection() as db:
            late = await poolers.unpaused(db, tenant_id, operation_id)
            route = await routes.find(db, tenant_id)
        # Nobody is late for a pause that is over: look whether it still is this one.
        if route is None or (route.paused_by, route.pause_epoch) != (operation_id, epoch):
            raise PoolerUnavailable("this pause was ended by another hand before all had it")
        return late

    late = await _until_none(missing, seconds)
    if late:
        raise PoolerUnavailable(
            f"{', '.join(late)} did not pause this tenant within {seconds:g} s, so no pooler "
            "does; see `tenantry poolers list`"
        )


async def _until_none(missing: Callable[[], Awaitable[list[str]]], seconds: float) -> list[str]:
    deadline = asyncio.get_running_loop().time() + seconds
    pause = _FIRST_LOOK_SECONDS
    while names := await missing():
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return names
        await rest(min(pause, left))
        pause = min(pause * 2, _LOOK_SECONDS)
    return []
