"""The page of each action: what will happen first, then what has to be typed, then the button."""

from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Redirect

from control_plane.console.access import needs
from control_plane.console.action_forms import ActionForm
from control_plane.console.action_parts import Action
from control_plane.console.actions import ACTIONS
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting, new_form_key
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant
from control_plane.services.tenants import find_tenant


def action_pages() -> list[HTTPRouteHandler]:
    """Form, plan and button of every action, each behind the permission of its operation."""
    return [handler for action in ACTIONS for handler in _pages(action)]


def _pages(action: Action) -> list[HTTPRouteHandler]:
    path = f"/tenants/{{tenant:str}}/{action.path}"

    @get(path, opt=needs(action.permission))
    async def show(tenant: FromPath[str], request: AnyRequest, visit: Visiting) -> Response[str]:
        return await _show(action, tenant, request, visit, typed=_asked(request))

    @get(f"{path}/plan", opt=needs(action.permission))
    async def plan(tenant: FromPath[str], request: AnyRequest, visit: Visiting) -> Response[str]:
        return await _plan(action, tenant, request, visit, _asked(request))

    @post(path, opt=needs(action.permission))
    async def begin(tenant: FromPath[str], request: AnyRequest, visit: Visiting) -> Response[Any]:
        return await _begin(action, tenant, request, visit)

    return [show, plan, begin]


def _asked(request: AnyRequest) -> dict[str, str]:
    """What the address says; links to a form fill it in this way."""
    return {name: str(value) for name, value in request.query_params.items() if value}


async def _show(
    action: Action,
    slug: str,
    request: AnyRequest,
    visit: Visit,
    trouble: Trouble | None = None,
    typed: dict[str, str] | None = None,
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        tenant = await find_tenant(db, visit.caller, slug)
        choices = await action.choices(db, visit, tenant)
    return page(
        request,
        "action.html",
        trouble.status if trouble else 200,
        action=action,
        tenant=tenant,
        trouble=trouble,
        typed=typed or {},
        steps=PLANS[action.kind].steps,
        settings=visit.ports.settings,
        **choices,
    )


async def _plan(
    action: Action, slug: str, request: AnyRequest, visit: Visit, fields: dict[str, str]
) -> Response[str]:
    """What would be done at this moment, or what stands in its way: the request, taken back."""
    trouble, steps = None, PLANS[action.kind].steps
    try:
        async with visit.ports.catalog.connection() as db:
            tenant = await find_tenant(db, visit.caller, slug)
        said = {**fields, "form_key": new_form_key(), "confirm": tenant.slug}
        work = action.work(visit, tenant.slug, read_form(said, action.form))
        steps = tuple(step.name for step in (await visit.rehearse(work)).steps)
    except TenantryError as error:
        trouble = trouble_of(error)
    return page(request, "_plan.html", trouble=trouble, steps=steps)


async def _begin(action: Action, slug: str, request: AnyRequest, visit: Visit) -> Response[Any]:
    fields = await fields_of(request)
    try:
        form = read_form(fields, action.form)
        async with visit.ports.catalog.connection() as db:
            tenant = await find_tenant(db, visit.caller, slug)
        _require_confirmed(action, tenant, form)
        begun = await visit.begin(action.work(visit, slug, form), form.form_key, fields)
    except TenantryError as error:
        return await _show(action, slug, request, visit, trouble_of(error), fields)
    return Redirect(f"/console/operations/{begun}", status_code=303)


def _require_confirmed(action: Action, tenant: Tenant, form: ActionForm) -> None:
    if action.destroys and form.confirm != tenant.slug:
        message = f"type {tenant.slug} to say that it is meant"
        raise Invalid(message, [{"field": "confirm", "message": message}])
