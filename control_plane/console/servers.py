"""Servers: how full and how well, and what can be done with one."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect
from msgspec import Meta

from control_plane.catalog import drains
from control_plane.catalog.drains import Drain
from control_plane.catalog.servers import Server
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.services import servers
from control_plane.services.draining import Departure, drain_by_moves, plan_drain
from control_plane.services.noise import noisy

_MOVES_MOST = 32


class DrainForm(msgspec.Struct, frozen=True, kw_only=True):
    """``how``: place nothing new, or move everything away, ``at_once`` at one time."""

    confirm: str = ""
    how: Annotated[str, Meta(pattern="^(stay|move)$")] = "stay"
    at_once: Annotated[int, Meta(ge=1, le=_MOVES_MOST)] = 1


class ServerPages(Controller):
    """``{server}`` is a name."""

    path = "/servers"

    @get(opt=needs("listServers"))
    async def list_servers(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """Every server of the fleet."""
        async with visit.ports.catalog.connection() as db:
            found = await servers.list_servers(db)
            emptied = {drain.server_id: drain for drain in await drains.every(db)}
        return page(request, "servers.html", servers=found, drains=emptied)

    @get("/{server:str}", opt=needs("getServer"))
    async def show_server(
        self, server: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """One server, with what was found when it was enrolled."""
        return await _show(server, request, visit)

    @get("/{server:str}/drain", opt=needs("drainServer"))
    async def plan(
        self, server: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """Where each of its tenants would go."""
        return await _plan(server, request, visit)

    @post("/{server:str}/drain", opt=needs("drainServer"))
    async def drain(
        self, server: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Place nothing new on it, and move what it holds away if that is wanted."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, DrainForm)
            _require_confirmed(server, form.confirm)
            async with visit.ports.catalog.transaction() as db:
                if form.how == "move":
                    await drain_by_moves(db, visit.caller, server, at_once=form.at_once)
                else:
                    await servers.drain_server(db, visit.caller, server)
        except TenantryError as error:
            return await _plan(server, request, visit, trouble_of(error), fields)
        return _to(server)

    @post("/{server:str}/undrain", opt=needs("undrainServer"))
    async def undrain(
        self, server: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Let it take tenants again."""
        try:
            async with visit.ports.catalog.transaction() as db:
                await servers.undrain_server(db, visit.caller, server)
        except TenantryError as error:
            return await _show(server, request, visit, trouble_of(error))
        return _to(server)

    @get("/{server:str}/remove", opt=needs("removeServer"))
    async def plan_remove(
        self, server: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """What taking it out of the fleet means."""
        return await _remove_page(server, request, visit, None)

    @post("/{server:str}/remove", opt=needs("removeServer"))
    async def remove(
        self, server: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Take it out of the fleet; while it is still being emptied, ask again later."""
        try:
            _require_confirmed(server, (await fields_of(request)).get("confirm", ""))
            async with visit.ports.catalog.transaction() as db:
                removal = await servers.remove_server(db, visit.caller, server)
        except TenantryError as error:
            return await _remove_page(server, request, visit, trouble_of(error))
        for operation in removal.reclaims:
            await visit.ports.doorbell.ring(operation.id, operation.queue)
        if removal.removed:
            return Redirect("/console/servers", status_code=303)
        waits = Trouble(409, f"{server} is being emptied: {removal.waits_for}; then remove it.")
        return await _show(server, request, visit, waits)


async def _show(
    name: str, request: AnyRequest, visit: Visit, trouble: Trouble | None = None
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        found = await servers.get_server(db, name)
        drain = await drains.of(db, found.id)
        moving = await drains.moving(db, found.id)
        noise = (await noisy(db, server=name))[0] if visit.may("getNoisy") else None
    return page(
        request,
        "server.html",
        trouble.status if trouble else 200,
        server=found,
        drain=drain,
        moving=moving,
        noise=noise,
        trouble=trouble,
    )


async def _plan(
    name: str,
    request: AnyRequest,
    visit: Visit,
    trouble: Trouble | None = None,
    typed: dict[str, str] | None = None,
) -> Response[str]:
    found: Server
    departures: list[Departure]
    drain: Drain | None
    async with visit.ports.catalog.snapshot() as db:
        found = await servers.get_server(db, name)
        departures = await plan_drain(db, name)
        drain = await drains.of(db, found.id)
    targets: dict[str, int] = {}
    for departure in departures:
        if departure.target is not None:
            targets[departure.target] = targets.get(departure.target, 0) + 1
    return page(
        request,
        "server_drain.html",
        trouble.status if trouble else 200,
        server=found,
        drain=drain,
        departures=departures,
        targets=targets,
        staying=[one for one in departures if one.target is None],
        trouble=trouble,
        typed=typed or {},
        most=_MOVES_MOST,
    )


async def _remove_page(
    name: str, request: AnyRequest, visit: Visit, trouble: Trouble | None
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        found = await servers.get_server(db, name)
    status = trouble.status if trouble else 200
    return page(request, "server_remove.html", status, server=found, trouble=trouble)


def _require_confirmed(name: str, typed: str) -> None:
    if typed != name:
        message = f"type {name} to say that it is meant"
        raise Invalid(message, [{"field": "confirm", "message": message}])


def _to(server: str) -> Redirect:
    return Redirect(f"/console/servers/{server}", status_code=303)
