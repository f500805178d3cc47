"""Poolers over HTTP: what each PgBouncer process serves, and forgetting one that is gone."""

import datetime as dt

import msgspec
from litestar import Controller, Response, delete, get
from litestar.params import FromPath

from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Limit, NameCursor, cut
from control_plane.catalog import poolers
from control_plane.catalog.idempotency import SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.catalog.poolers import Pooler
from control_plane.domain.names import show
from control_plane.services.poolers import remove_pooler
from control_plane.services.requests import Effect


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
    """Poolers register themselves."""

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

    @delete(
        "/{pooler:str}",
        operation_id="removePooler",
        status_code=204,
        responses=refusals(404, 409, 413),
    )
    async def remove_pooler(self, pooler: FromPath[str], changing: Writing) -> Response[None]:
        """Forget a PgBouncer that is gone for good; refused while DSNs name its address."""

        async def carry_out(db: Connection) -> Effect:
            await remove_pooler(db, changing.caller, pooler)
            return Effect(SavedAnswer(204, {}))

        saved = await changing.perform(carry_out)
        return Response(None, status_code=saved.status)
