"""Who may sign in."""

from litestar import Controller, Response, get

from control_plane.catalog import people
from control_plane.console.access import needs
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, Visiting

_MOST = 1000


class PeoplePages(Controller):
    """People and their roles."""

    path = "/people"

    @get(opt=needs("listPeople"))
    async def list_people(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """Everybody, in the order they were added."""
        async with visit.ports.catalog.connection() as db:
            found = await people.page(db, after=None, limit=_MOST)
        return page(request, "people.html", people=found)
