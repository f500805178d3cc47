"""Poolers over HTTP: what each PgBouncer process serves."""

import datetime as dt

import msgspec
from litestar import Controller, get

from control_plane.api.context import Reading
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Limit, NameCursor, cut
from control_plane.catalog import poolers
from control_plane.catalog.poolers import Pooler
from control_plane.domain.names import show


class PoolerView(msgspec.Struct, frozen=True):
    """One PgBouncer process; it is up to date when ``served_version`` is ``wanted_version``."""

    id: str
    name: str
    cell: str
    host: str
    port: int
    version: str | None
    alive: bool
    served_version: int
    wanted_version: int
    served_entries: int
    problem: str | None
    last_seen_at: dt.datetime


class PoolerPage(msgspec.Struct, frozen=True):
    items: list[PoolerView]
    next_cursor: str | None


def pooler_view(pooler: Pooler) -> PoolerView:
    """The JSON of a pooler."""
    return PoolerView(
        id=show("pl", pooler.id),
        name=pooler.name,
        cell=pooler.cell,
        host=pooler.host,
        port=pooler.port,
        version=pooler.version,
        alive=pooler.alive,
        served_version=pooler.served_version,
        wanted_version=pooler.wanted_version,
        served_entries=pooler.served_entries,
        problem=pooler.problem,
        last_seen_at=pooler.last_seen_at,
    )


class PoolerController(Controller):
    """Read only: poolers register themselves."""

    path = "/poolers"
    tags = ("servers",)

    @get(operation_id="listPoolers", responses=refusals())
    async def list_poolers(
        self, asking: Reading, cursor: NameCursor = None, limit: Limit = LIMIT
    ) -> PoolerPage:
        """Every PgBouncer process, by name."""
        async with asking.ports.catalog.connection() as db:
            found = await poolers.every(db)
        page, following = cut(found, lambda p: p.name, after=cursor, limit=limit)
        return PoolerPage([pooler_view(one) for one in page], following)
