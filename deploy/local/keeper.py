"""One running service: started, watched, restarted with backoff, stopped."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from deploy.local.logs import log_since, open_log
from deploy.local.ports import is_free
from deploy.local.problem import StackError, one_line
from deploy.local.spawn import Program, exit_code, kill_group, last_words, spawn

State = Literal["new", "starting", "running", "waiting", "halted"]
READY_POLL_SECONDS = 0.04


@dataclass(frozen=True)
class Launch:
    """What a readiness probe may look at."""

    pid: int
    log: Path
    log_offset: int


@dataclass(frozen=True)
class Service:
    """A program that must keep running, and how to tell that it does.

    ``tier`` orders the stop: the highest goes first. ``before`` runs ahead of every start.
    """

    name: str
    program: Program
    ready: Callable[[Launch], Awaitable[bool]]
    tier: int
    port: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    ready_seconds: float = 60.0
    before: Callable[[], None] | None = None


@dataclass
class Backoff:
    """Seconds to wait before a restart: doubling, and forgotten after a minute of health."""

    first: float = 1.0
    longest: float = 30.0
    forgotten_after: float = 60.0
    _next: float = 0.0

    def delay(self, lived_seconds: float) -> float:
        if lived_seconds >= self.forgotten_after or not self._next:
            self._next = self.first
        wait, self._next = self._next, min(self._next * 2, self.longest)
        return wait


class Keeper:
    """Keeps one service running from ``start`` until ``halt``."""

    def __init__(
        self,
        service: Service,
        log: Path,
        report: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.service = service
        self.state: State = "new"
        self.started_at: datetime | None = None
        self.log = log
        self._report = report
        self._changed = changed
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._running = asyncio.Event()

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def start(self) -> None:
        """Start the service and return when it answers; from then on it is kept running.

        Raises:
            StackError: it did not come up; nothing of it is left running.
        """
        await self._launch()
        self._keeping = asyncio.create_task(self._keep(), name=f"keep {self.service.name}")

    async def halt(self) -> None:
        """Stop the service and leave it stopped."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
            self._keeping = None
        if self._process is not None:
            await self._end(self._process)
        self._set("halted")

    async def heal(self) -> None:
        """Return when the service answers; a halted one is started, a waiting one at once.

        Raises:
            StackError: it does not come up.
        """
        if self._keeping is None:
            await self.start()
        elif self.state != "running":
            self._hurry.set()
            try:
                async with asyncio.timeout(self.service.ready_seconds):
                    await self._running.wait()
            except TimeoutError:
                raise StackError(f"{self.service.name} does not come up; see {self.log}") from None

    async def _keep(self) -> None:
        while self._process is not None:
            code = await exit_code(self._process)
            kill_group(self._process)
            wait = self._backoff.delay(self._lived())
            self._hurry.clear()
            self._set("waiting")
            self._report(f"{self.service.name} ended ({_ending(code)}); restart in {wait:g} s")
            await self._pause(wait)
            try:
                await self._launch()
            except Exception as error:  # noqa: BLE001 whatever it is, the next try may succeed
                self._report(one_line(error))
            else:
                self._report(f"{self.service.name} runs again as process {self.pid}")

    async def _launch(self) -> None:
        service = self.service
        self._set("starting")
        if service.port is not None and not is_free(service.port):
            raise StackError(f"port {service.port} of {service.name} is taken by another process")
        if service.before is not None:
            service.before()
        launch = self._spawn()
        try:
            async with asyncio.timeout(service.ready_seconds):
                await self._answer(launch)
        except TimeoutError:
            await self._end(self._started())
            raise StackError(
                f"{service.name} did not answer within {service.ready_seconds:g} s; "
                f"{self.log} ends: {self._ends(launch)}"
            ) from None
        self._set("running")

    def _spawn(self) -> Launch:
        with open_log(self.log) as log:
            offset = os.fstat(log.fileno()).st_size
            self._process = spawn(self.service.program, log, subprocess.STDOUT)
        self.started_at = datetime.now(UTC)
        self._changed()
        return Launch(self._process.pid, self.log, offset)

    async def _answer(self, launch: Launch) -> None:
        while not await self.service.ready(launch):
            if self._started().poll() is not None:
                kill_group(self._started())
                raise StackError(
                    f"{self.service.name} ended while starting; "
                    f"{self.log} ends: {self._ends(launch)}"
                )
            await asyncio.sleep(READY_POLL_SECONDS)

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            _signal(process.pid, self.service.stop_signal)
            _signal(process.pid, signal.SIGCONT)  # a frozen process hears no other signal
            try:
                async with asyncio.timeout(self.service.grace_seconds):
                    await exit_code(process)
            except TimeoutError:
                self._report(f"{self.service.name} did not stop in time and was killed")
        kill_group(process)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StackError(f"{self.service.name} was never started")
        return self._process

    def _lived(self) -> float:
        return (datetime.now(UTC) - self.started_at).total_seconds() if self.started_at else 0.0

    def _ends(self, launch: Launch) -> str:
        return last_words(log_since(launch.log, launch.log_offset))

    def _set(self, state: State) -> None:
        self.state = state
        if state == "running":
            self._running.set()
        else:
            self._running.clear()
        self._changed()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
