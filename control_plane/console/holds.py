"""Legal holds: a tenant put under one, and released, with the reason on record."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect
from msgspec import Meta

from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Connection
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import TenantryError
from control_plane.services import legal_holds
from control_plane.services.tenants import find_tenant

Change: TypeAlias = Callable[[Connection, Caller, str, str], Awaitable[object]]


class ReasonForm(msgspec.Struct, frozen=True):
    """Why."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class HoldPages(Controller):
    """``{tenant}`` is a slug or a ``tn_`` id."""

    path = "/tenants/{tenant:str}"

    @get("/hold", opt=needs("holdTenant"))
    async def ask_to_hold(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """What a hold means."""
        return await _show(tenant, request, visit)

    @post("/hold", opt=needs("holdTenant"))
    async def hold(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """From now on nothing of the tenant is destroyed."""
        return await _carry_out(legal_holds.hold_tenant, tenant, request, visit)

    @get("/release", opt=needs("releaseTenant"))
    async def ask_to_release(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """What goes on when the hold ends."""
        return await _show(tenant, request, visit)

    @post("/release", opt=needs("releaseTenant"))
    async def release(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """End the hold; a deletion that waited for it goes on."""
        return await _carry_out(legal_holds.release_tenant, tenant, request, visit)


async def _carry_out(change: Change, slug: str, request: AnyRequest, visit: Visit) -> Response[Any]:
    fields = await fields_of(request)
    try:
        form = read_form(fields, ReasonForm)
        async with visit.ports.catalog.transaction() as db:
            await change(db, visit.caller, slug, form.reason)
    except TenantryError as error:
        return await _show(slug, request, visit, trouble_of(error))
    return Redirect(f"/console/tenants/{slug}", status_code=303)


async def _show(
    slug: str, request: AnyRequest, visit: Visit, trouble: Trouble | None = None
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        tenant = await find_tenant(db, visit.caller, slug)
        hold = await legal_holds.find_hold(db, visit.caller, slug)
    status = trouble.status if trouble else 200
    return page(request, "hold.html", status, tenant=tenant, hold=hold, trouble=trouble)
