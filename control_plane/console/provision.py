"""The wizard for new tenants: a name becomes a slug, a tier a place, and a button a database."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect
from msgspec import Meta

from control_plane.catalog import servers
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.domain.tenants import TIER_LIMITS, TIERS, Tier
from control_plane.services.placing import NewTenant
from control_plane.services.tenants import create_tenant, find_tenant
from control_plane.services.wizard import Rehearsed, free_slug, rehearse_tenant, slug_problem

NAME_MOST = 200
Typed = Annotated[str, QueryParameter(max_length=NAME_MOST)]


class ProvisionForm(msgspec.Struct, frozen=True, kw_only=True):
    """What the wizard asks; a slug that is left out is made of the name."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)] = ""
    name: Annotated[str, Meta(max_length=NAME_MOST)]
    slug: Annotated[str, Meta(max_length=60)] = ""
    tier: Tier = "standard"
    region: Annotated[str, Meta(max_length=100)] | None = None
    server: Annotated[str, Meta(max_length=60)] | None = None

    @property
    def wanted(self) -> NewTenant:
        """The request that this form makes."""
        return NewTenant(self.slug, self.name, self.tier, self.region, self.server)


class ProvisionPages(Controller):
    """New tenants, one at a time."""

    path = "/provision"

    @get(opt=needs("createTenant"))
    async def show(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """The form."""
        return await _show(request, visit, {})

    @get("/check-slug", opt={**needs("createTenant"), "quiet": True})
    async def check_slug(
        self,
        request: AnyRequest,
        visit: Visiting,
        name: Typed = "",
        slug: Typed = "",
        suggested: Typed = "",
    ) -> Response[str]:
        """The slug's field: a suggestion as long as nobody typed another one, and its verdict."""
        async with visit.ports.catalog.connection() as db:
            asked = "HX-Trigger-Name" in request.headers
            named = asked and request.headers["HX-Trigger-Name"] == "name"
            if slug == suggested and named:
                slug = suggested = await free_slug(db, name)
            problem = await slug_problem(db, slug) if slug else None
        return page(
            request,
            "_slug.html" if named else "_slug_verdict.html",
            slug=slug,
            suggested=suggested,
            problem=problem,
        )

    @get("/preview", opt={**needs("createTenant"), "quiet": True})
    async def preview(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """Where it would go at this moment, and why; or what stands in its way."""
        fields = {name: value.strip() for name, value in request.query_params.items()}
        typed = {name: value for name, value in fields.items() if value}
        if "name" not in typed:
            return page(request, "_placement.html", rehearsed=None, trouble=None)
        try:
            form = await _with_slug(visit, read_form(typed, ProvisionForm))
            rehearsed = await rehearse_tenant(visit.ports, visit.caller, form.wanted)
        except TenantryError as error:
            trouble = trouble_of(error)
            return page(request, "_placement.html", rehearsed=None, trouble=trouble)
        return page(request, "_placement.html", rehearsed=rehearsed, trouble=None)

    @post(opt=needs("createTenant"))
    async def create(self, request: AnyRequest, visit: Visiting) -> Response[Any]:
        """Begin it; its steps are shown live."""
        fields = await fields_of(request)
        try:
            form = await _with_slug(visit, read_form(fields, ProvisionForm))
            begun = await visit.begin(
                lambda db: create_tenant(db, visit.ports, visit.caller, form.wanted),
                form.form_key,
                fields,
            )
        except TenantryError as error:
            return await _show(request, visit, fields, trouble_of(error))
        return Redirect(f"/console/operations/{begun}", status_code=303)


class HandOverPages(Controller):
    """What whoever runs the application needs to know about a tenant that is ready."""

    path = "/handover"

    @get("/{tenant:str}", opt=needs("getTenant"))
    async def show(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """State, server, how an application asks for its DSN, and the DSN for who may."""
        async with visit.ports.catalog.connection() as db:
            found = await find_tenant(db, visit.caller, tenant)
        url = visit.ports.settings.console.public_url or str(request.base_url).rstrip("/")
        return page(request, "handover.html", tenant=found, url=url)


async def _with_slug(visit: Visit, form: ProvisionForm) -> ProvisionForm:
    """The form with a slug: the one typed, else one made of the name.

    Raises:
        Invalid: nothing in the name can be a slug.
    """
    if form.slug:
        return form
    async with visit.ports.catalog.connection() as db:
        slug = await free_slug(db, form.name)
    if not slug:
        message = "type one: nothing in the name can be used"
        raise Invalid(f"slug: {message}", [{"field": "slug", "message": message}])
    return msgspec.structs.replace(form, slug=slug)


async def _show(
    request: AnyRequest, visit: Visit, typed: dict[str, str], trouble: Trouble | None = None
) -> Response[str]:
    async with visit.ports.catalog.connection() as db:
        known = [one for one in await servers.every(db) if one.state == "active"]
        problem = await slug_problem(db, typed["slug"]) if typed.get("slug") else None
    rehearsed: Rehearsed | None = None
    return page(
        request,
        "provision.html",
        trouble.status if trouble else 200,
        typed=typed,
        slug=typed.get("slug", ""),
        suggested=typed.get("suggested", ""),
        problem=problem,
        trouble=trouble,
        rehearsed=rehearsed,
        tiers=[(tier, TIER_LIMITS[tier]) for tier in TIERS],
        regions=sorted({one.region for one in known if one.region}),
        servers=[one.name for one in known] if visit.may("listServers") else [],
    )
