"""What beat asks for about usage: look at the servers, roll up, watch for who disturbs whom.

Every tick may run late, twice or not at all; a round over a server is somebody's or nobody's.
"""

from collections.abc import Awaitable, Callable, Mapping

from control_plane.services.noise import watch_noise
from control_plane.services.ports import Ports
from control_plane.services.usage_sampling import roll_up_usage, sample_usage

TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {
    tick.__name__: tick for tick in (sample_usage, roll_up_usage, watch_noise)
}
