"""The fleet at a glance."""

from litestar import Controller, Response, get

from control_plane.console.access import needs
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest


class OverviewPages(Controller):
    """``/console/``."""

    path = "/"

    @get(opt=needs("listTenants"))
    async def show(self, request: AnyRequest) -> Response[str]:
        """What there is, what runs, and what needs attention."""
        return page(request, "overview.html")
