"""What beat asks for about backups: begin what is due, watch what was promised, clear away.

Every tick may run late, twice or not at all; each does what is due by the catalog's clock.
"""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping

from control_plane.services import backup_planning, catalog_backups, pruning
from control_plane.services.backup_planning import catalog_time
from control_plane.services.ports import Ports


async def plan_backups(ports: Ports) -> None:
    """Begin the backups whose turn it is."""
    await backup_planning.plan_backups(ports, await catalog_time(ports))


async def plan_drills(ports: Ports) -> None:
    """Begin the restore drills whose turn it is."""
    await backup_planning.plan_drills(ports, await catalog_time(ports))


async def watch_rpo(ports: Ports) -> None:
    """Tell of tenants whose newest backup is too old, and of those for which that is mended."""
    await backup_planning.watch_rpo(ports, await catalog_time(ports))


async def prune_backups(ports: Ports) -> None:
    """Destroy the backups that no rule keeps."""
    await pruning.prune_backups(ports, await catalog_time(ports))


async def collect_garbage(ports: Ports) -> None:
    """Delete from the store what work that came to nothing left there."""
    await pruning.collect_garbage(ports, await catalog_time(ports))


async def drop_replaced(ports: Ports) -> None:
    """Begin to drop databases that an in-place restore replaced long enough ago."""
    await pruning.drop_replaced(ports, await catalog_time(ports))


async def back_up_catalog(ports: Ports) -> None:
    """Back up the catalog itself, when that is due."""
    interval = dt.timedelta(minutes=ports.settings.backup.catalog_minutes)
    await catalog_backups.back_up_if_due(ports, interval)


TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {
    tick.__name__: tick
    for tick in (
        plan_backups,
        plan_drills,
        watch_rpo,
        prune_backups,
        collect_garbage,
        drop_replaced,
        back_up_catalog,
    )
}
