"""The fleet at a glance."""

import asyncio

from litestar import Controller, Response, get
from litestar.response import ServerSentEvent

from control_plane.console.access import needs
from control_plane.console.rendering import fragment, page
from control_plane.console.streams import Shown, live
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.services.check import run_check
from control_plane.services.fleet import Fleet, look_at_fleet

# Of each concern; the rest is counted.
SUBJECTS_SHOWN = 6
_REST_SECONDS = 1.0
_checking = asyncio.Lock()


class OverviewPages(Controller):
    """``/console/``."""

    path = "/"

    @get(opt=needs("listTenants"))
    async def show(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """What there is, what runs, and what needs attention."""
        return page(request, "overview.html", **_facts(visit, await _look(visit)))

    @get("/overview/events", opt={**needs("listTenants"), "quiet": True})
    async def follow(self, visit: Visiting) -> ServerSentEvent:
        """The same part again whenever an operation changes."""

        async def look() -> Shown:
            facts = _facts(visit, await _look(visit))
            return Shown(fragment(visit, "_fleet.html", **facts))

        return live(visit, visit.desk.changes.watch_all(), look, rest_seconds=_REST_SECONDS)

    @get("/overview/findings", opt=needs("runCheck"))
    async def check(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """What differs between the catalog and the servers, looked at now, one look at a time."""
        async with _checking:
            found = await run_check(visit.ports)
        return page(request, "_findings.html", findings=found)


async def _look(visit: Visit) -> Fleet:
    async with visit.ports.catalog.snapshot() as db:
        return await look_at_fleet(db)


def _facts(visit: Visit, fleet: Fleet) -> dict[str, object]:
    return {
        "fleet": fleet,
        "concerns": [one for one in fleet.concerns if visit.may(one.permission)],
        "shown": SUBJECTS_SHOWN,
    }
