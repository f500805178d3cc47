"""News of operations for everybody who watches one: a single LISTEN per process, fanned out.

While the listening connection is away, watchers look again every second by themselves.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from uuid import UUID

import structlog

from control_plane.catalog.operations import CHANNEL
from control_plane.catalog.pool import Catalog, translated
from control_plane.domain.errors import TenantryError

_log = structlog.get_logger(__name__)
_LOOK_AGAIN_SECONDS = 1.0


class Changes:
    """Wakes whoever watches an operation when the catalog says that it changed."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._watchers: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._watchers_of_all: set[asyncio.Event] = set()
        self._lost = asyncio.Event()
        self._lost.set()

    @property
    def listening(self) -> bool:
        """Whether news arrive; otherwise watchers have to look for themselves."""
        return not self._lost.is_set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen in the background, again and again, until the block ends."""
        task = asyncio.create_task(self._listen_forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def watch(self, operation_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set at every change of this operation; the watcher clears it."""
        changed = asyncio.Event()
        self._watchers[operation_id].add(changed)
        try:
            yield changed
        finally:
            self._watchers[operation_id].discard(changed)
            if not self._watchers[operation_id]:
                del self._watchers[operation_id]

    @contextmanager
    def watch_all(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change of any operation; the watcher clears it."""
        changed = asyncio.Event()
        self._watchers_of_all.add(changed)
        try:
            yield changed
        finally:
            self._watchers_of_all.discard(changed)

    async def wait(self, changed: asyncio.Event, seconds: float) -> None:
        """Return when it is time to look again: at a change, or after at most ``seconds``."""
        patience = seconds if self.listening else min(seconds, _LOOK_AGAIN_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), patience)
        changed.clear()

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except TenantryError as error:
                _log.warning("listener_away", error=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), _LOOK_AGAIN_SECONDS)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        lost = asyncio.Event()
        connection = await self._catalog.dedicated()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            with translated():
                await connection.add_listener(CHANNEL, self._tell)
            self._lost = lost
            self._tell_everybody()
            await lost.wait()
        finally:
            lost.set()
            self._tell_everybody()
            connection.terminate()

    def _tell(self, _connection: object, _pid: int, _channel: str, payload: Any) -> None:  # noqa: ANN401 - asyncpg's signature
        with suppress(ValueError):
            for changed in (*self._watchers.get(UUID(payload), ()), *self._watchers_of_all):
                changed.set()

    def _tell_everybody(self) -> None:
        """News may have been missed, or waiting times changed."""
        for watchers in (*self._watchers.values(), self._watchers_of_all):
            for changed in watchers:
                changed.set()
