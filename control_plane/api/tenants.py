"""Tenants over HTTP: make, list, look, suspend, resume."""

from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, SkipValidation
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, next_cursor, position
from control_plane.api.views import OperationView, TenantPage, TenantView, tenant_view
from control_plane.api.words import NAME_OR_ID, PRINTABLE, REGION, SLUG_PREFIX
from control_plane.catalog import tenants as catalog_tenants
from control_plane.catalog.tenants import Filter
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.names import SLUG_PATTERN
from control_plane.domain.tenants import TenantState, Tier
from control_plane.services import tenants
from control_plane.services.placing import NewTenant

LabelKey = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=63)]
LabelValue = Annotated[str, Meta(pattern=PRINTABLE, max_length=255)]
# The service says what is wrong with a slug; the schema only has to show its form.
Slug = Annotated[str, Meta(extra_json_schema={"pattern": SLUG_PATTERN})]


class NewTenantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new tenant. Without ``server`` the least loaded one that fits is chosen.

    ``template`` names the class of tenants whose schema it gets.
    """

    slug: Slug
    name: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=200)]
    tier: Tier = "standard"
    region: Annotated[str, Meta(pattern=REGION)] | None = None
    server: Annotated[str, Meta(pattern=NAME_OR_ID)] | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Meta(max_length=50)] = {}
    template: Annotated[str, Meta(pattern=NAME_OR_ID)] = DEFAULT_TEMPLATE


def provide_filter(
    tier: FromQuery[Tier | None] = None,
    tenant_state: Annotated[TenantState | None, QueryParameter(name="state")] = None,
    server: Annotated[str | None, QueryParameter(pattern=NAME_OR_ID)] = None,
    slug_prefix: Annotated[str | None, QueryParameter(pattern=SLUG_PREFIX)] = None,
) -> Filter:
    """Which tenants to list."""
    return Filter(state=tenant_state, tier=tier, server=server, prefix=slug_prefix)


class TenantController(Controller):
    """``{tenant}`` is a slug or a ``tn_`` id."""

    path = "/tenants"
    tags = ("tenants",)

    @post(
        operation_id="createTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(409, 413)},
        response_headers=[LOCATION],
    )
    async def create_tenant(
        self, data: JSONBody[NewTenantBody], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Give a new tenant its database, its logins and its route."""
        wanted = NewTenant(
            slug=data.slug,
            name=data.name,
            tier=data.tier,
            region=data.region,
            server=data.server,
            labels=data.labels,
            template=data.template,
        )
        return await accept_or_rehearse(
            changing,
            lambda db: tenants.create_tenant(db, changing.ports, changing.caller, wanted),
            dry_run=dry_run,
        )

    @get(
        operation_id="listTenants",
        responses=refusals(),
        dependencies={"where": Provide(provide_filter, sync_to_thread=False)},
    )
    async def list_tenants(
        self,
        asking: Reading,
        where: NamedDependency[SkipValidation[Filter]],
        cursor: Cursor = None,
        limit: Limit = LIMIT,
    ) -> TenantPage:
        """Tenants, oldest first; deleted ones only with ``state=deleted``."""
        async with asking.ports.catalog.connection() as db:
            found = await catalog_tenants.page(db, after=position(cursor), limit=limit, where=where)
        return TenantPage(
            [tenant_view(tenant) for tenant in found], next_cursor(found, limit, lambda t: t.id)
        )

    @get("/{tenant:str}", operation_id="getTenant", responses=refusals(404))
    async def get_tenant(self, tenant: FromPath[str], asking: Reading) -> TenantView:
        """One tenant, with what is in flight for it."""
        async with asking.ports.catalog.connection() as db:
            return tenant_view(await tenants.find_tenant(db, asking.caller, tenant))

    @post(
        "/{tenant:str}/suspensions",
        operation_id="suspendTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def suspend_tenant(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Cut a tenant off at once and keep its data."""
        return await accept_or_rehearse(
            changing,
            lambda db: tenants.suspend_tenant(db, changing.caller, tenant),
            dry_run=dry_run,
        )

    @delete(
        "/{tenant:str}/suspensions",
        operation_id="resumeTenant",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def resume_tenant(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Let a suspended tenant in again, with the credentials it had."""
        return await accept_or_rehearse(
            changing,
            lambda db: tenants.resume_tenant(db, changing.caller, tenant),
            dry_run=dry_run,
        )
