"""The agent's one connection to the catalog: listens, reads in one snapshot, acknowledges."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from control_plane.adapters.clock import new_id
from control_plane.catalog import poolers, routes
from control_plane.catalog.pool import Catalog, Connection, translated
from control_plane.catalog.poolers import Heartbeat, Registration
from control_plane.config import PoolerSettings
from control_plane.router.pauses import PauseOrder
from control_plane.router.route_table import Change

_CATALOG_SECONDS = 5.0


class CatalogLink:
    """One registered connection; every method raises ``CatalogUnavailable`` when it is over."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._one_at_a_time = asyncio.Lock()
        self._settled = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, catalog: Catalog, settings: PoolerSettings, notify: Callable[[], None]
    ) -> AsyncIterator[Self]:
        """Connect, register the pooler and call ``notify`` whenever its cell changes.

        Raises:
            CatalogUnavailable: the catalog does not answer.
            Conflict: another pooler has this address.
        """
        db = await catalog.dedicated()
        try:
            link = cls(db)
            async with link._turn():
                await link._register(settings)
                wanted = str(link.cell_id)
                await db.add_listener(
                    routes.CHANNEL, lambda *heard: notify() if heard[3] == wanted else None
                )
            db.add_termination_listener(lambda _: notify())
            yield link
        finally:
            db.terminate()

    async def read(self, newer_than: int) -> Change:
        """What changed after this version; the first look at a link asks for everything."""
        since = newer_than if self._settled else -1
        read_at = time.monotonic()
        async with (
            self._turn(),
            self._db.transaction(isolation="repeatable_read", readonly=True),
        ):
            version = await routes.cell_version(self._db, self.cell_id)
            changed = await routes.wanted(self._db, self.cell_id, newer_than=since)
            signers = await self._authorities()
        self._settled = True
        return Change(version, changed, signers, full=since < 0, read_at=read_at)

    async def beat(self, heartbeat: Heartbeat) -> None:
        async with self._turn():
            await poolers.beat(self._db, heartbeat)

    async def lost(self, problem: str) -> None:
        async with self._turn():
            await poolers.lost(self._db, self.pooler_id, problem)

    async def acknowledge(self, order: PauseOrder) -> None:
        async with self._turn():
            await routes.ack_pause(
                self._db,
                order.tenant_id,
                self.pooler_id,
                operation_id=order.operation_id,
                epoch=order.epoch,
            )
