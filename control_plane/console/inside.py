"""What is in a tenant's database: its tables, its indexes, its slow statements, as of now."""

from litestar import Controller, Response, get
from litestar.params import FromPath

from control_plane.console.access import needs
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visiting
from control_plane.services.usage import look_inside


class InsidePages(Controller):
    """``{tenant}`` is a slug or a ``tn_`` id."""

    path = "/tenants/{tenant:str}/inside"

    @get(opt=needs("lookInside"))
    async def show_inside(
        self, tenant: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """Asked of the server each time the page is opened; no row of the tenant is read."""
        found = await look_inside(visit.ports, visit.caller, tenant)
        return page(
            request,
            "inside.html",
            tenant=found.tenant,
            usage=found.tables,
            statements=found.statements,
        )
