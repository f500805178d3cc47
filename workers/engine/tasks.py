"""Thin synchronous shims between Celery and the engine: one event loop per worker process."""

import asyncio
import ctypes
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
import uvloop
from celery import Celery, signals

from control_plane.adapters.doorbell import ADVANCE
from control_plane.bootstrap import make_ports
from control_plane.catalog.catalog_life import require_usable
from control_plane.catalog.leases import due
from control_plane.config import Settings
from control_plane.domain.errors import CatalogUnavailable, TenantryError
from control_plane.domain.names import decode
from control_plane.services.ports import Ports
from workers.engine.runner import Runner
from workers.engine.step import Verb

_log = structlog.get_logger(__name__)
_PR_SET_PDEATHSIG = 1
_SWEEP_LIMIT = 500

Tick = Callable[[Ports], Awaitable[None]]


class Process:
    """What one Celery child process keeps between tasks."""

    def __init__(self, settings: Settings, verbs: Mapping[str, Verb]) -> None:
        self._loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.ports = make_ports(settings)
        self.runner = Runner(self.ports, verbs)
        self._open = False

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one piece of work to its end on this process's loop."""
        self._loop.run(self._guarded(work))

    def close(self) -> None:
        self._loop.run(self.runner.close())
        self._loop.close()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            if not self._open:
                await self.ports.catalog.open(max_size=4)
                self._open = True
            try:
                await self._accepted(work)
            except CatalogUnavailable:
                # The catalog may only have been restarted while this process was idle.
                await self.ports.catalog.forget_idle()
                await self._accepted(work)
        except TenantryError as error:
            # Nothing is lost: whatever is due is rung again by the sweeper.
            _log.warning("work_put_off", code=error.code, error=error.message)

    async def _accepted(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, if the catalog is one to work from."""
        async with self.ports.catalog.connection() as db:
            await require_usable(db)
        await work()


def register(
    app: Celery, settings: Settings, verbs: Mapping[str, Verb], ticks: Mapping[str, Tick]
) -> None:
    """Give a Celery application its tasks: ``advance``, ``sweep`` and one per tick."""
    process: list[Process] = []
    # One line per sweep would bury the lines that matter; the engine logs what goes wrong.
    for chatty in ("celery.worker.strategy", "celery.app.trace", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    @signals.worker_process_init.connect(weak=False)
    def start(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
        # A killed worker must not leave children that hold sessions on tenant servers.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        process.append(Process(settings, verbs))

    @signals.worker_process_shutdown.connect(weak=False)
    def stop(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
        while process:
            process.pop().close()

    @app.task(name=ADVANCE)
    def advance(operation: str) -> None:
        process[0].run(lambda: process[0].runner.advance(decode(operation)))

    @app.task(name="tenantry.sweep")
    def sweep() -> None:
        process[0].run(lambda: ring_due(process[0].ports))

    for name, tick in ticks.items():
        _register_tick(app, process, name, tick)


def _register_tick(app: Celery, process: list[Process], name: str, tick: Tick) -> None:
    @app.task(name=f"tenantry.{name}")
    def run_tick() -> None:
        process[0].run(lambda: tick(process[0].ports))


async def ring_due(ports: Ports) -> None:
    """Ring again for every operation that is due and held by nobody.

    Not in a queue that nobody empties: there every sweep would only add to the broker's memory.
    """
    async with ports.catalog.connection() as db:
        waiting = await due(db, _SWEEP_LIMIT)
    for queue in {queue for _, queue in waiting}:
        unheard = await ports.doorbell.unheard(queue)
        if unheard is None or unheard >= _SWEEP_LIMIT:
            continue
        for operation_id in [each for each, its_queue in waiting if its_queue == queue]:
            await ports.doorbell.ring(operation_id, queue)
