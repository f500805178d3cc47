"""Tenants: looked through, and looked at."""

from typing import Annotated
from urllib.parse import urlencode

from litestar import Controller, Response, get
from litestar.params import FromPath, QueryParameter
from litestar.response import ServerSentEvent

from control_plane.catalog import servers, tenant_list
from control_plane.catalog.tenant_list import Search
from control_plane.console.access import needs
from control_plane.console.actions import offered
from control_plane.console.charts import HOURS, RANGES, charts_of
from control_plane.console.rendering import fragment, page
from control_plane.console.streams import Shown, live
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.names import parse, show
from control_plane.domain.tenants import TIERS, TenantState, Tier
from control_plane.services.dossier import look_at_tenant
from control_plane.services.noise import ladder
from control_plane.services.usage import MOST_HOURS, usage_of

PAGE = 50
_WORDS_MOST = 200
_STATES: tuple[TenantState, ...] = (
    "active",
    "provisioning",
    "suspended",
    "archived",
    "deleting",
    "deleted",
)
Words = Annotated[str, QueryParameter(max_length=_WORDS_MOST)]
Hours = Annotated[int, QueryParameter(ge=1, le=MOST_HOURS)]


class TenantPages(Controller):
    """``{tenant}`` is a slug or a ``tn_`` id."""

    path = "/tenants"

    @get(opt=needs("listTenants"))
    async def list_tenants(  # noqa: PLR0913, PLR0917 - one per filter
        self,
        request: AnyRequest,
        visit: Visiting,
        q: Words = "",
        tenant_state: Annotated[str, QueryParameter(name="state")] = "",
        tier: Annotated[Tier | str, QueryParameter()] = "",
        server: Annotated[str, QueryParameter()] = "",
        after: Annotated[str, QueryParameter()] = "",
    ) -> Response[str]:
        """One page of the tenants that match, by slug."""
        where = Search(q.strip() or None, tenant_state or None, tier or None, server or None)
        async with visit.ports.catalog.connection() as db:
            found = await tenant_list.page(db, where, after=parse("tn", after), limit=PAGE)
            count = await tenant_list.count(db, where)
            names = [s.name for s in await servers.every(db)] if visit.may("listServers") else []
        typed = {"q": q.strip(), "state": tenant_state, "tier": tier, "server": server}
        following = show("tn", found[-1].id) if len(found) == PAGE else None
        return page(
            request,
            "_tenants.html" if "HX-Request" in request.headers else "tenants.html",
            tenants=found,
            count=count,
            typed=typed,
            states=_STATES,
            tiers=TIERS,
            servers=names,
            next_url=_url(typed, following) if following else None,
            first_url=_url(typed, None) if after else None,
        )

    @get("/{tenant:str}", opt=needs("getTenant"))
    async def show_tenant(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting, hours: Hours = HOURS
    ) -> Response[str]:
        """Everything about one tenant, and what may be done with it now."""
        return page(request, "tenant.html", **await _look(visit, tenant, hours))

    @get("/{tenant:str}/events", opt={**needs("getTenant"), "quiet": True})
    async def follow(
        self, tenant: FromPath[str], visit: Visiting, hours: Hours = HOURS
    ) -> ServerSentEvent:
        """The tenant again whenever something happens to it."""

        async def look() -> Shown:
            return Shown(fragment(visit, "_tenant.html", **await _look(visit, tenant, hours)))

        return live(visit, visit.desk.changes.watch_all(), look, rest_seconds=0.5)


async def _look(visit: Visit, tenant: str, hours: int) -> dict[str, object]:
    async with visit.ports.catalog.snapshot() as db:
        dossier = await look_at_tenant(
            db, visit.ports, visit.caller, tenant, audited=visit.may("listAudit")
        )
        used = await usage_of(db, visit.caller, tenant, hours=hours)
        disturbs = used.disturbance is not None and visit.may("getNoisy")
        rungs = await ladder(db, dossier.tenant) if disturbs else []
    return {
        "it": dossier,
        "tenant": dossier.tenant,
        "actions": offered(visit, dossier),
        "used": used,
        "charts": charts_of(used),
        "ladder": rungs,
        "hours": hours,
        "ranges": RANGES,
    }


def _url(typed: dict[str, str], after: str | None) -> str:
    query = {name: value for name, value in {**typed, "after": after}.items() if value}
    return "/console/tenants" + (f"?{urlencode(query)}" if query else "")
