"""Servers made to order over HTTP: have one made, list them, have one deleted."""

import datetime as dt
from typing import Annotated, TypeAlias

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Limit, NameCursor, cut
from control_plane.api.views import OperationView
from control_plane.api.words import PRINTABLE
from control_plane.catalog.provided_servers import ProvidedServer, ProvidedState
from control_plane.domain.names import SERVER_NAME_PATTERN, show
from control_plane.domain.providers import ProviderKind, ServerWish
from control_plane.domain.tenants import Tier
from control_plane.services import providing
from control_plane.services.providing import NewProvidedServer

Lost: TypeAlias = Annotated[
    bool, QueryParameter(description="It will never answer again: it is not asked what it has")
]

Word = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=100)]


class MachineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server to be made; what is left out is up to its provider."""

    name: Annotated[str, Meta(pattern=SERVER_NAME_PATTERN)]
    provider: ProviderKind
    region: Word | None = None
    instance_class: Word | None = None
    storage_gb: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    version: Annotated[int, Meta(ge=15, le=18)] | None = None
    labels: Annotated[dict[Word, Word], Meta(max_length=50)] = {}

    def wanted(self, tier: Tier | None = None, capacity: int = 1) -> NewProvidedServer:
        """The request in the words of the service."""
        wish = ServerWish(
            region=self.region,
            instance_class=self.instance_class,
            storage_gb=self.storage_gb,
            version=self.version,
            labels=self.labels,
            tier=tier,
            capacity=capacity,
        )
        return NewProvidedServer(self.name, self.provider, wish)


class ProvidedServerBody(MachineBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server to be made and enrolled; without ``tier`` it takes every shared one."""

    tier: Tier | None = None
    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 500


class ProvidedServerView(msgspec.Struct, frozen=True):
    """A server that its provider made; ``id`` is also that of the server once it is enrolled."""

    id: str
    name: str
    provider: ProviderKind
    state: ProvidedState
    region: str | None
    instance_class: str | None
    storage_gb: int | None
    version: int | None
    created_at: dt.datetime


class ProvidedServerPage(msgspec.Struct, frozen=True):
    items: list[ProvidedServerView]
    next_cursor: str | None


class ProvidedServerController(Controller):
    """``{server}`` is a name."""

    path = "/provided-servers"
    tags = ("servers",)

    @post(
        operation_id="createServer",
        status_code=202,
        responses={**REHEARSED, **refusals(409, 413)},
        response_headers=[LOCATION],
    )
    async def create_server(
        self, data: JSONBody[ProvidedServerBody], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Have a Postgres server made, and enrol it."""
        wanted = data.wanted(data.tier, data.capacity)
        return await accept_or_rehearse(
            changing,
            lambda db: providing.create_server(db, changing.ports, changing.caller, wanted),
            dry_run=dry_run,
        )

    @get(operation_id="listProvidedServers", responses=refusals())
    async def list_provided_servers(
        self, asking: Reading, cursor: NameCursor = None, limit: Limit = LIMIT
    ) -> ProvidedServerPage:
        """Every server that a provider made and has not deleted, by name."""
        async with asking.ports.catalog.connection() as db:
            found = await providing.list_provided(db)
        page, following = cut(found, lambda s: s.name, after=cursor, limit=limit)
        return ProvidedServerPage([_view(one) for one in page], following)

    @delete(
        "/{server:str}",
        operation_id="deleteServer",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def delete_server(
        self,
        server: FromPath[str],
        changing: Writing,
        *,
        lost: Lost = False,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Take a server without tenants out of the fleet, and have its provider delete it."""
        return await accept_or_rehearse(
            changing,
            lambda db: providing.delete_server(db, changing.caller, server, lost=lost),
            dry_run=dry_run,
        )


def _view(made: ProvidedServer) -> ProvidedServerView:
    return ProvidedServerView(
        id=show("sv", made.id),
        name=made.name,
        provider=made.provider,
        state=made.state,
        region=made.wish.region,
        instance_class=made.wish.instance_class,
        storage_gb=made.wish.storage_gb,
        version=made.wish.version,
        created_at=made.created_at,
    )
