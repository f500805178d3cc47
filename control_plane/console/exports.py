"""Bundles for customers: which there are, and links to them, each on record."""

from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath

from control_plane.catalog import exports as catalog_exports
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, trouble_of
from control_plane.console.problems import Throttled
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import TenantryError
from control_plane.services.exports import LINK_SECONDS, Link, make_link
from control_plane.services.tenants import find_tenant

_SHOWN = 50


class ExportPages(Controller):
    """``{tenant}`` is a slug or a ``tn_`` id, ``{export}`` an ``ex_`` id."""

    path = "/tenants/{tenant:str}/exports"

    @get(opt=needs("listExports"))
    async def list_exports(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """Bundles of a tenant, newest first."""
        return await _show(tenant, request, visit)

    @post("/{export:str}/link", opt=needs("createExportLink"), status_code=200)
    async def link(
        self, tenant: FromPath[str], export: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """A link that gives the bundle to whoever has it, for some minutes; on record first."""
        wait = visit.desk.limits.reveals.take(visit.caller.principal.key_id)
        if wait is not None:
            raise Throttled(wait)
        try:
            async with visit.ports.catalog.transaction() as db:
                made = await make_link(db, visit.ports, visit.caller, export, LINK_SECONDS)
        except TenantryError as error:
            return await _show(tenant, request, visit, trouble=trouble_of(error))
        return await _show(tenant, request, visit, made=made)


async def _show(
    slug: str,
    request: AnyRequest,
    visit: Visit,
    *,
    made: Link | None = None,
    trouble: Trouble | None = None,
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        tenant = await find_tenant(db, visit.caller, slug)
        found = await catalog_exports.page(db, tenant.id, after=None, limit=_SHOWN)
    return page(
        request,
        "exports.html",
        trouble.status if trouble else 200,
        tenant=tenant,
        exports=found,
        made=made,
        trouble=trouble,
    )
