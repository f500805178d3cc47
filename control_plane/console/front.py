"""The address a person types, and those that lead nowhere."""

from litestar import Controller, get
from litestar.params import FromPath
from litestar.response import Redirect

from control_plane.console.access import OPEN, SIGNED_IN
from control_plane.domain.errors import NotFound


class Front(Controller):
    """``/`` leads to the console."""

    path = "/"
    opt = OPEN

    @get()
    async def show(self) -> Redirect:
        """Lead to the overview."""
        return Redirect("/console/", status_code=303)


class Nowhere(Controller):
    """Whatever no other page answers."""

    path = "/"
    opt = SIGNED_IN

    @get("/{rest:path}")
    async def show(self, rest: FromPath[str]) -> None:
        """Say so, to somebody who is signed in, with the way to other pages."""
        raise NotFound(f"There is no page {rest}.")
