"""Draining by moves: a few tenants at a time leave a server, until it is empty."""

from collections.abc import Awaitable, Callable, Mapping

from control_plane.services.draining import advance_drains
from control_plane.services.ports import Ports

TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {advance_drains.__name__: advance_drains}
