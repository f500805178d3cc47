"""Pauses: a tenant's clients wait while an operation holds its route, and never for longer.

A pause is comfort, not safety (the fence is in Postgres), so every doubt ends in RESUME: when
the operation ends it, when its seconds are over on this machine's own clock, when the agent
stops. What a person paused by hand stays paused. Session pools pause only when their clients
leave; if they stay, the pause is never acknowledged, unless the order is to cut them off.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import msgspec
import structlog

from control_plane.catalog.routes import PauseScope
from control_plane.domain.errors import CatalogUnavailable, PoolerUnavailable
from control_plane.domain.names import SESSION_SUFFIX
from control_plane.router.pgbouncer_console import Console
from control_plane.router.pgbouncer_files import PoolerFiles
from control_plane.router.waiting import rest

LEDGER_FILE = "pauses.json"
_RETRY_SECONDS = 0.2
_FIRST_ASK_SECONDS = 0.05
_LONGEST_ASK_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
_CLOSE_SECONDS = 1.0

Acknowledge = Callable[["PauseOrder"], Awaitable[None]]
log = structlog.get_logger()


class PauseOrder(msgspec.Struct, frozen=True):
    """A pause that an operation wants; ``deadline`` is monotonic, the same for all processes."""

    tenant_id: UUID
    alias: str
    operation_id: UUID
    epoch: int
    deadline: float
    scope: PauseScope = "all"

    @property
    def names(self) -> tuple[str, ...]:
        session = self.alias + SESSION_SUFFIX
        return (session,) if self.scope == "sessions" else (self.alias, session)

    def cuts(self, name: str) -> bool:
        """Whether clients of this entry lose their connections instead of being waited for."""
        return self.scope == "cut" and name.endswith(SESSION_SUFFIX)

    @property
    def facts(self) -> dict[str, str]:
        """What a log line says of it."""
        return {"alias": self.alias, "operation": str(self.operation_id)}

    def same(self, other: "PauseOrder | None") -> bool:
        """Whether both are the same operation's same pause."""
        return other is not None and (
            self.tenant_id,
            self.operation_id,
            self.epoch,
            self.scope,
        ) == (other.tenant_id, other.operation_id, other.epoch, other.scope)


class _Claim(msgspec.Struct):
    order: PauseOrder
    ours: set[str]


class _Ledger:
    """Which entries this agent paused, on disk before they are, so that its successor knows."""

    def __init__(self, files: PoolerFiles) -> None:
        self._files = files
        self._claims: dict[UUID, _Claim] = {}

    def left_behind(self) -> list[_Claim]:
        """The claims of the agent that ran before, which are ours from now on."""
        try:
            claims = msgspec.json.decode(
                self._files.read(LEDGER_FILE) or "[]", type=list[_Claim], strict=True
            )
        except msgspec.MsgspecError:
            claims = []
        self._claims = {claim.order.tenant_id: claim for claim in claims}
        return claims

    def claim(self, order: PauseOrder, ours: set[str]) -> None:
        """Record a claim.

        Raises:
            PoolerUnavailable: the file cannot be written.
        """
        self._claims[order.tenant_id] = _Claim(order, set(ours))
        self._write()

    def drop(self, order: PauseOrder) -> None:
        claim = self._claims.get(order.tenant_id)
        if claim is not None and claim.order.same(order):
            del self._claims[order.tenant_id]
            self._write()

    def _write(self) -> None:
        self._files.write(LEDGER_FILE, msgspec.json.encode(list(self._claims.values())).decode())


class Pauses:
    """All pauses of one PgBouncer process, each in a task of its own."""

    def __init__(self, console: Console, files: PoolerFiles, acknowledge: Acknowledge) -> None:
        self._console = console
        self._ledger = _Ledger(files)
        self._acknowledge = acknowledge
        self._holds: dict[UUID, _Hold] = {}

    def adopt(self) -> None:
        """Watch over what an agent before this one left paused, until the catalog answers."""
        for claim in self._ledger.left_behind():
            log.info("pause_adopted", **claim.order.facts)
            self._start(claim.order, adopted=claim.ours)

    def follow(self, orders: Mapping[UUID, PauseOrder]) -> None:
        """Begin the pauses that are wanted and end the others; returns at once."""
        for tenant_id, hold in list(self._holds.items()):
            if hold.order.same(orders.get(tenant_id)):
                hold.confirm()
            else:
                hold.end()
                if hold.task.done():
                    del self._holds[tenant_id]
        for tenant_id, order in orders.items():
            hold_now = self._holds.get(tenant_id)
            known = hold_now is not None and hold_now.order.same(order)
            if not known and order.deadline > time.monotonic():
                self._start(order)

    async def after_restart(self) -> None:
        """Pause again what a new PgBouncer process does not know; waits a moment for it."""
        live = [hold for hold in self._holds.values() if not hold.task.done()]
        for hold in live:
            hold.again()
        if live:
            waits = {asyncio.ensure_future(hold.held.wait()) for hold in live}
            _, late = await asyncio.wait(waits, timeout=_AGAIN_SECONDS)
            for wait in late:
                wait.cancel()

    async def close(self) -> None:
        """Resume everything, for nobody would watch over it."""
        tasks = {hold.task for hold in self._holds.values()}
        for hold in self._holds.values():
            hold.end()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _start(self, order: PauseOrder, adopted: set[str] | None = None) -> None:
        before = self._holds.get(order.tenant_id)
        self._holds[order.tenant_id] = _Hold(
            order,
            self._console,
            self._ledger,
            self._acknowledge,
            adopted=adopted,
            after=before.task if before else None,
        )


class _Hold:
    """One pause from PAUSE to RESUME."""

    def __init__(
        self,
        order: PauseOrder,
        console: Console,
        ledger: _Ledger,
        acknowledge: Acknowledge,
        *,
        adopted: set[str] | None,
        after: "asyncio.Task[None] | None",
    ) -> None:
        self.order = order
        self.held = asyncio.Event()
        self._console = console
        self._ledger = ledger
        self._acknowledge = acknowledge
        self._ours = adopted or set()
        self._go = asyncio.Event()
        self._ended = asyncio.Event()
        self._confirmed = adopted is None
        if self._confirmed:
            self._go.set()
        self.task = asyncio.create_task(self._run(after), name=f"pause {order.alias}")

    def confirm(self) -> None:
        """The catalog still wants this pause: an adopted one may be acknowledged now."""
        if not self._confirmed:
            self._confirmed = True
            self._go.set()

    def again(self) -> None:
        """PgBouncer may have forgotten the pause."""
        if self._confirmed:
            self.held.clear()
            self._go.set()

    def end(self) -> None:
        self._ended.set()

    async def _run(self, after: "asyncio.Task[None] | None") -> None:
        if after is not None:
            await asyncio.wait({after})
        work = asyncio.create_task(self._keep())
        ended = asyncio.create_task(self._ended.wait())
        left = max(0.0, self.order.deadline - time.monotonic())
        await asyncio.wait({work, ended}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, ended):
            task.cancel()
        await asyncio.wait({work, ended})
        if not work.cancelled() and work.exception() is not None:
            log.error("pause_failed", **self.order.facts, exc_info=work.exception())
        elif not self._ended.is_set():
            log.warning("pause_ran_out", **self.order.facts)
        await self._release()

    async def _keep(self) -> None:
        while True:
            await self._go.wait()
            self._go.clear()
            await self._pause_all()
            await self._tell()
            if not self._go.is_set():
                self.held.set()

    async def _pause_all(self) -> None:
        while True:
            try:
                await self._claim()
                async with asyncio.TaskGroup() as group:
                    for name in self.order.names:
                        group.create_task(self._pause(name))
                served = await self._console.databases()
            except* PoolerUnavailable as group_error:
                log.warning("pause_waits", **self.order.facts, problem=str(group_error))
            else:
                if all(name in served and served[name].paused for name in self.order.names):
                    return
            await rest(_RETRY_SECONDS)

    async def _claim(self) -> None:
        """Take note of what is not paused yet: that, and no more, is ours to resume."""
        served = await self._console.databases()
        running = {n for n in self.order.names if n in served and not served[n].paused}
        self._ours |= running
        self._ledger.claim(self.order, self._ours)

    async def _pause(self, name: str) -> None:
        """Ask until the clients are held.

        PgBouncer 1.18 answers a waiting PAUSE only when the clients of every paused database
        are held, but a PAUSE that comes after at once: so one tenant's long transaction would
        hold up another's pause if nobody asked again.
        """
        if self.order.cuts(name):
            await self._console.kill(name)
            return
        seconds = _FIRST_ASK_SECONDS
        while not await self._console.pause(name, seconds):
            seconds = min(seconds * 2, _LONGEST_ASK_SECONDS)

    async def _tell(self) -> None:
        while True:
            try:
                await self._acknowledge(self.order)
            except CatalogUnavailable:
                await rest(_RETRY_SECONDS)
            else:
                log.info("paused", **self.order.facts)
                return

    async def _release(self) -> None:
        while True:
            try:
                for name in sorted(self._ours):
                    await self._console.resume(name)
                self._ledger.drop(self.order)
            except PoolerUnavailable as error:
                log.warning("resume_waits", **self.order.facts, problem=error.message)
                await rest(_RETRY_SECONDS)
            else:
                log.info("resumed", entries=sorted(self._ours), **self.order.facts)
                return
