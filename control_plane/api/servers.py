"""Servers over HTTP: enrol, list, look, drain, remove."""

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, accept
from control_plane.api.context import Reading, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Limit, NameCursor, cut
from control_plane.api.views import OperationView
from control_plane.api.words import PRINTABLE
from control_plane.catalog.idempotency import SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server, ServerState, Tls
from control_plane.config import Secret
from control_plane.domain.names import SERVER_NAME_PATTERN, show
from control_plane.domain.tenants import Tier
from control_plane.services import servers
from control_plane.services.draining import drain_by_moves
from control_plane.services.enrolment import NewServer, probe_server
from control_plane.services.requests import Effect
from control_plane.services.servers import Removal

Line = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=100)]


class NewServerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Postgres server to enrol, with its administrator; without ``tier`` it takes every one."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": SERVER_NAME_PATTERN})]
    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    user: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=63)]
    password: Annotated[str, Meta(min_length=1, max_length=1000)]
    region: Line | None = None
    tier: Tier | None = None
    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 500
    labels: Annotated[dict[Line, Line], Meta(max_length=50)] = {}
    tls: Tls | None = None
    ca_pem: Annotated[str, Meta(max_length=32_768)] | None = None


class DrainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``move``: its tenants are moved to other servers, ``moves_at_once`` at one time."""

    move: bool = False
    moves_at_once: Annotated[int, Meta(ge=1, le=32)] = 1


class ServerView(msgspec.Struct, frozen=True):
    """One Postgres server; ``preflight`` is what was found when it was enrolled."""

    id: str
    name: str
    host: str
    port: int
    user: str
    tls: Tls
    version: str
    region: str | None
    tier: Tier | None
    labels: dict[str, str]
    capacity: int
    placed: int
    pooled: int
    state: ServerState
    reachable: bool
    problem: str | None
    checked_at: dt.datetime
    created_at: dt.datetime
    preflight: list[dict[str, Any]]


class ServerPage(msgspec.Struct, frozen=True):
    items: list[ServerView]
    next_cursor: str | None


def server_view(server: Server) -> ServerView:
    """The JSON of a server."""
    return ServerView(
        id=show("sv", server.id),
        name=server.name,
        host=server.host,
        port=server.port,
        user=server.admin_login,
        tls=server.tls,
        version=f"{server.version_num // 10_000}.{server.version_num % 10_000}",
        region=server.region,
        tier=server.tier,
        labels=server.labels,
        capacity=server.capacity,
        placed=server.placed,
        pooled=server.pooled,
        state=server.state,
        reachable=server.reachable,
        problem=server.problem,
        checked_at=server.checked_at,
        created_at=server.created_at,
        preflight=server.preflight,
    )


class RemovalView(msgspec.Struct, frozen=True):
    """A removal that is not over: ask again when the operations are."""

    server: str
    removed: bool
    waits_for: str | None
    operations: list[str]


_EMPTYING = {
    202: ResponseSpec(
        data_container=RemovalView,
        description="It is being emptied of databases made ahead; ask again when that is over",
        generate_examples=False,
    )
}


class ServerController(Controller):
    """``{server}`` is a name."""

    path = "/servers"
    tags = ("servers",)

    @post(
        operation_id="addServer",
        status_code=202,
        responses=refusals(409, 413),
        response_headers=[LOCATION],
    )
    async def add_server(
        self, data: JSONBody[NewServerBody], changing: Writing
    ) -> Response[OperationView]:
        """Examine a Postgres server, and enrol it when nothing stands against it."""
        saved = await changing.recall()
        if saved is not None:
            return answer(saved, OperationView)
        wanted = _wanted(data)
        # Before the transaction, because a look at a server takes its time.
        probed = await probe_server(changing.ports, wanted)
        return await accept(
            changing,
            lambda db: servers.add_server(db, changing.ports, changing.caller, wanted, probed),
        )

    @get(operation_id="listServers", responses=refusals())
    async def list_servers(
        self, asking: Reading, cursor: NameCursor = None, limit: Limit = LIMIT
    ) -> ServerPage:
        """Every server of the fleet, by name."""
        async with asking.ports.catalog.connection() as db:
            found = await servers.list_servers(db)
        page, following = cut(found, lambda s: s.name, after=cursor, limit=limit)
        return ServerPage([server_view(one) for one in page], following)

    @get("/{server:str}", operation_id="getServer", responses=refusals(404))
    async def get_server(self, server: FromPath[str], asking: Reading) -> ServerView:
        """One server, with what was found when it was enrolled."""
        async with asking.ports.catalog.connection() as db:
            return server_view(await servers.get_server(db, server))

    @post(
        "/{server:str}/drain",
        operation_id="drainServer",
        status_code=200,
        responses=refusals(404, 409, 413),
    )
    async def drain_server(
        self,
        server: FromPath[str],
        changing: Writing,
        data: JSONBody[DrainBody | None] = None,
    ) -> Response[ServerView]:
        """Place no new tenants on a server; those it holds stay, or are moved away one by one."""

        async def carry_out(db: Connection) -> Effect:
            if data is not None and data.move:
                drained = await drain_by_moves(
                    db, changing.caller, server, at_once=data.moves_at_once
                )
            else:
                drained = await servers.drain_server(db, changing.caller, server)
            return effect(200, server_view(drained))

        return answer(await changing.perform(carry_out), ServerView)

    @delete(
        "/{server:str}/drain",
        operation_id="undrainServer",
        status_code=200,
        responses=refusals(404, 409, 413),
    )
    async def undrain_server(
        self, server: FromPath[str], changing: Writing
    ) -> Response[ServerView]:
        """Let a drained server take tenants again."""

        async def carry_out(db: Connection) -> Effect:
            return effect(
                200, server_view(await servers.undrain_server(db, changing.caller, server))
            )

        return answer(await changing.perform(carry_out), ServerView)

    @delete(
        "/{server:str}",
        operation_id="removeServer",
        status_code=204,
        responses={**_EMPTYING, **refusals(404, 409, 413)},
    )
    async def remove_server(self, server: FromPath[str], changing: Writing) -> Response[None]:
        """Take a server out of the fleet; 202 while it is still being emptied."""
        rung: list[Removal] = []

        async def carry_out(db: Connection) -> Effect:
            removal = await servers.remove_server(db, changing.caller, server)
            rung.append(removal)
            if removal.removed:
                return Effect(SavedAnswer(204, {}))
            return effect(202, removal_view(removal))

        saved = await changing.perform(carry_out)
        for operation in (one for removal in rung for one in removal.reclaims):
            await changing.ports.doorbell.ring(operation.id, operation.queue)
        if saved.status == HTTPStatus.NO_CONTENT:
            return Response(None, status_code=saved.status)
        return answer(saved, RemovalView)


def removal_view(removal: Removal) -> RemovalView:
    """The JSON of a removal that is not over."""
    return RemovalView(
        server=removal.server.name,
        removed=removal.removed,
        waits_for=removal.waits_for,
        operations=[show("op", operation.id) for operation in removal.reclaims],
    )


def _wanted(data: NewServerBody) -> NewServer:
    return NewServer(
        name=data.name,
        host=data.host,
        port=data.port,
        user=data.user,
        password=Secret(data.password),
        region=data.region,
        tier=data.tier,
        capacity=data.capacity,
        labels=data.labels,
        tls=data.tls,
        ca_pem=data.ca_pem,
    )
