"""The wanted routes of one cell in memory: merged from changes, never half of one."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.catalog.routes import WantedRoute
from control_plane.router.pauses import PauseOrder
from control_plane.router.pgbouncer_config import servable


class Change(msgspec.Struct, frozen=True):
    """What one look into the catalog found, in one snapshot.

    ``full`` says that ``routes`` is everything published; otherwise it is what changed.
    ``authorities`` are certificates in PEM, ``None`` if no changed route asks for them.
    ``read_at`` is the monotonic clock just before the look, in seconds.
    """

    version: int
    routes: list[WantedRoute]
    authorities: list[str] | None
    full: bool
    read_at: float


class RouteTable:
    """Published routes by tenant, as of ``version`` (-1 before the first look)."""

    def __init__(self) -> None:
        self.version = -1
        self.authorities: Sequence[str] = ()
        self._routes: dict[UUID, WantedRoute] = {}
        self._pauses: dict[UUID, PauseOrder] = {}

    @property
    def loaded(self) -> bool:
        return self.version >= 0

    @property
    def pauses(self) -> dict[UUID, PauseOrder]:
        """The pauses that operations want now, by tenant."""
        return self._pauses

    @property
    def tenants(self) -> dict[str, UUID]:
        """Whose each published alias is."""
        return {route.alias: route.tenant_id for route in self._routes.values()}

    def merge(self, change: Change) -> bool:
        """Take a change in; whether the configuration may have changed."""
        if change.full:
            self._routes, self._pauses, self.authorities = {}, {}, ()
        for route in change.routes:
            self._take(route, change.read_at)
        if change.authorities is not None:
            self.authorities = change.authorities
        self.version = change.version
        return change.full or bool(change.routes)

    def servable(self) -> tuple[list[WantedRoute], list[str]]:
        """The routes to serve, and one line for each that cannot be served."""
        return servable(self._routes.values())

    def _take(self, route: WantedRoute, read_at: float) -> None:
        self._routes.pop(route.tenant_id, None)
        self._pauses.pop(route.tenant_id, None)
        if not route.published:
            return
        self._routes[route.tenant_id] = route
        if route.paused_by is None or route.pause_epoch is None or route.pause_seconds is None:
            return
        self._pauses[route.tenant_id] = PauseOrder(
            tenant_id=route.tenant_id,
            alias=route.alias,
            operation_id=route.paused_by,
            epoch=route.pause_epoch,
            deadline=read_at + route.pause_seconds,
            scope=route.pause_scope or "all",
        )
