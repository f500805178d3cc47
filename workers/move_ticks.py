"""Moves between operations: servers are emptied a few tenants at a time, ways back stay open."""

from collections.abc import Awaitable, Callable, Mapping

from control_plane.services.draining import advance_drains
from control_plane.services.move_links import redial_ways_back
from control_plane.services.ports import Ports

TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {
    tick.__name__: tick for tick in (advance_drains, redial_ways_back)
}
