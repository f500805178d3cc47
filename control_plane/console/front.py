"""The address a person types."""

from litestar import Controller, get
from litestar.response import Redirect

from control_plane.console.access import OPEN


class Front(Controller):
    """``/`` leads to the console."""

    path = "/"
    opt = OPEN

    @get()
    async def show(self) -> Redirect:
        """Lead to the overview."""
        return Redirect("/console/", status_code=303)
