"""The agent's one connection to the catalog: listens, reads in one snapshot, acknowledges."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Self
from uuid import UUID

import msgspec

from control_plane.adapters.clock import new_id
from control_plane.catalog import catalog_life, poolers, routes, usage
from control_plane.catalog.pool import Catalog, Connection, translated
from control_plane.catalog.poolers import Heartbeat, Registration
from control_plane.catalog.usage import Pooled
from control_plane.config import PoolerSettings
from control_plane.router.pauses import PauseOrder
from control_plane.router.route_table import Change

_CATALOG_SECONDS = 5.0


class PoolerState(msgspec.Struct, frozen=True):
    """What an agent reports; ``served_version`` is the version of the cell that it serves."""

    version: str | None
    served_version: int
    entries: int
    digest: str | None
    problem: str | None


class CatalogLink:
    """One registered connection; every method raises ``CatalogUnavailable`` when it is over."""

    def __init__(self, db: Connection, settings: PoolerSettings) -> None:
        self._db = db
        self._settings = settings
        self._one_at_a_time = asyncio.Lock()
        self._settled = False
        self._cell_id = UUID(int=0)
        self._pooler_id = UUID(int=0)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, catalog: Catalog, settings: PoolerSettings, notify: Callable[[], None]
    ) -> AsyncIterator[Self]:
        """Connect, register the pooler and call ``notify`` whenever its cell changes.

        Raises:
            CatalogUnavailable: the catalog does not answer.
            CatalogMismatch, CatalogNotAccepted: it is none to work from: what was served goes on
                being served.
            Conflict: another pooler has this address.
        """
        db = await catalog.dedicated()
        try:
            link = cls(db, settings)
            await link._register()
            await link._listen(notify)
            yield link
        finally:
            db.terminate()

    def hang_up(self) -> None:
        """End the connection at once, and with it whatever waits for an answer."""
        self._db.terminate()

    async def read(self, newer_than: int) -> Change:
        """What changed after this version; the first look at a link asks for everything."""
        since = newer_than if self._settled else -1
        read_at = time.monotonic()
        async with self._turn():
            version, changed = await routes.changes(self._db, self._cell_id, newer_than=since)
            verifying = any(route.tls == "verify-full" for route in changed)
            signers = await routes.authorities(self._db, self._cell_id) if verifying else None
        self._settled = True
        return Change(version, changed, signers, full=since < 0, read_at=read_at)

    async def beat(self, state: PoolerState) -> None:
        """Say what the pooler serves, which is a sign of life too."""
        heartbeat = Heartbeat(
            pooler_id=self._pooler_id,
            version=state.version,
            served_version=state.served_version,
            served_entries=state.entries,
            served_digest=state.digest,
            problem=state.problem,
        )
        async with self._turn():
            await poolers.beat(self._db, heartbeat)

    async def lost(self, problem: str) -> None:
        """Say that the pooler does not answer, which is no sign of life."""
        async with self._turn():
            await poolers.lost(self._db, self._pooler_id, problem)

    async def report_usage(self, found: Sequence[Pooled]) -> None:
        """Say what the pooler did for its tenants since it was said last."""
        async with self._turn():
            await usage.add_pooled(self._db, found)

    async def acknowledge(self, order: PauseOrder) -> None:
        """Say that the pooler holds every client of this tenant."""
        async with self._turn():
            await routes.ack_pause(
                self._db,
                order.tenant_id,
                self._pooler_id,
                operation_id=order.operation_id,
                epoch=order.epoch,
            )

    async def _register(self) -> None:
        settings = self._settings
        async with self._turn(), self._db.transaction():
            await catalog_life.require_usable(self._db)
            cell = await routes.ensure_cell(self._db, new_id(), settings.cell)
            wanted = Registration(new_id(), settings.name, cell.id, settings.host, settings.port)
            self._pooler_id = await poolers.register(self._db, wanted)
        self._cell_id = cell.id

    async def _listen(self, notify: Callable[[], None]) -> None:
        cell = str(self._cell_id)

        def heard(_: object, __: int, ___: str, payload: object) -> None:
            if payload == cell:
                notify()

        self._db.add_termination_listener(lambda _: notify())
        async with self._turn():
            await self._db.add_listener(routes.CHANNEL, heard)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One caller at a time, with a limit that holds even if the catalog is frozen.

        A cancelled query would first be rolled back, which a frozen catalog never answers; an
        aborted connection ends every wait.
        """
        async with self._one_at_a_time:
            fuse = asyncio.get_running_loop().call_later(_CATALOG_SECONDS, self._db.terminate)
            try:
                with translated():
                    yield
            finally:
                fuse.cancel()
