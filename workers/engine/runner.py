"""Carries operations forward: claim, run steps, record each outcome, let go.

``advance`` is the whole engine. It may be called for any operation at any time, by many workers
at once: the claim decides who works.
"""

import asyncio
import os
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID

import structlog

from control_plane.adapters.admin_sessions import AdminSessions
from control_plane.catalog import leases
from control_plane.catalog.leases import Lease, Problem
from control_plane.domain.errors import InternalError, LeaseLost, TenantryError
from control_plane.domain.names import encode
from control_plane.domain.operations import OperationState, may_retry, retry_delay
from control_plane.services.ports import Ports
from workers.engine import failpoints
from workers.engine.step import Done, Outcome, Skip, Step, StepContext, Verb, Wait

_log = structlog.get_logger(__name__)

# Waits shorter than this are waited out here: giving the operation back costs a round trip
# through the catalog and the doorbell, which is longer.
_WAIT_HERE_SECONDS = 0.5
_WAIT_HERE_TOTAL_SECONDS = 5.0


class Runner:
    """The engine of one worker process."""

    def __init__(self, ports: Ports, verbs: Mapping[str, Verb]) -> None:
        self._ports = ports
        self._verbs = verbs
        self._sessions = AdminSessions()
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    async def close(self) -> None:
        await self._sessions.close()
        await self._ports.catalog.close()

    async def advance(self, operation_id: UUID) -> None:
        """Run an operation's steps until it waits, ends, or is lost to another worker."""
        settings = self._ports.settings.engine
        async with self._ports.catalog.connection() as db:
            claimed = await leases.claim(
                db, operation_id, owner=self._owner, seconds=settings.lease_seconds
            )
        if claimed is None:
            return
        operation, lease = claimed
        context = StepContext(operation, lease, self._ports, self._sessions)
        work = asyncio.create_task(self._run(context, lease))
        heart = asyncio.create_task(self._beat(lease, work))
        try:
            await work
        except LeaseLost:
            _log.warning("lease_lost", operation=encode(operation_id), epoch=lease.epoch)
        except asyncio.CancelledError:
            _log.warning("lease_lost_in_step", operation=encode(operation_id), epoch=lease.epoch)
        finally:
            context.leave()
            heart.cancel()
            with suppress(asyncio.CancelledError):
                await heart
        await self._follow(self._verbs[operation.kind])

    async def _follow(self, verb: Verb) -> None:
        """Let go on what waited; it is done sooner than by a tick, and not more surely."""
        if verb.follow is None:
            return
        try:
            await verb.follow(self._ports)
        except TenantryError as error:
            _log.warning("not_followed", kind=verb.plan.kind, error=error.message)

    async def _beat(self, lease: Lease, work: "asyncio.Task[None]") -> None:
        """Extend the lease while ``work`` runs; stop the work when the lease is lost."""
        while True:
            done, _ = await asyncio.wait({work}, timeout=lease.seconds / 3)
            if done:
                return
            try:
                async with self._ports.catalog.connection() as db:
                    await leases.extend(db, lease)
            except LeaseLost:
                work.cancel()
                return
            except TenantryError as error:
                _log.warning("heartbeat_missed", error=error.message)

    async def _run(self, context: StepContext, lease: Lease) -> None:
        operation = context.operation
        if operation.state == "cancelling":
            await self._end(context, lease, "cancelled", None)
            return
        steps = {step.__name__: step for step in self._verbs[operation.kind].steps}
        for position, recorded in enumerate(operation.steps):
            if recorded.state not in ("pending", "running"):
                continue
            outcome = await self._attempt(context, steps[recorded.name])
            if not await self._settle(context, lease, position, outcome):
                return

    async def _attempt(self, context: StepContext, step: Step) -> Outcome | TenantryError:
        """Run one step between its two crash points; every error becomes one of ours."""
        directory, operation = self._ports.settings.engine.failpoint_dir, context.operation
        boundary = f"{operation.kind}.{step.__name__}"
        try:
            failpoints.reach(directory, f"{boundary}.before", operation.subject)
            outcome = await self._until_long_wait(context, step)
            failpoints.reach(directory, f"{boundary}.after", operation.subject)
        except LeaseLost:
            raise
        except TenantryError as error:
            return error
        except Exception:  # noqa: BLE001 - the one place where a bug becomes a recorded error
            _log.exception("step_crashed", operation=encode(operation.id), step=step.__name__)
            return InternalError(f"{step.__name__} hit a bug; see the worker's log")
        return outcome

    async def _until_long_wait(self, context: StepContext, step: Step) -> Outcome:
        """Run a step; short waits are waited out here, longer ones are for the catalog."""
        context.waited_seconds = 0.0
        outcome = await step(context)
        while (
            isinstance(outcome, Wait)
            and 0 < outcome.seconds <= _WAIT_HERE_SECONDS
            and context.waited_seconds < _WAIT_HERE_TOTAL_SECONDS
        ):
            await pause(outcome.seconds)
            context.waited_seconds += outcome.seconds
            outcome = await step(context)
        return outcome

    async def _settle(
        self, context: StepContext, lease: Lease, position: int, outcome: Outcome | TenantryError
    ) -> bool:
        """Record how a step ended; ``True`` when the next step may run."""
        if isinstance(outcome, TenantryError):
            await self._fail(context, lease, position, outcome)
            return False
        if isinstance(outcome, Wait):
            await self._wait(context, lease, position, outcome)
            return False
        state = await self._record(context, lease, position, outcome)
        if state == "cancelling":
            await self._end(context, lease, "cancelled", None)
        return state == "running"

    async def _record(
        self, context: StepContext, lease: Lease, position: int, outcome: Done | Skip
    ) -> OperationState:
        ended = leases.Outcome(
            position=position,
            state="done" if isinstance(outcome, Done) else "skipped",
            detail=outcome.detail if isinstance(outcome, Done) else outcome.reason,
            last=position == len(context.operation.steps) - 1,
        )
        async with self._ports.catalog.connection() as db:
            return await leases.record(db, lease, ended)

    async def _wait(self, context: StepContext, lease: Lease, position: int, outcome: Wait) -> None:
        async with self._ports.catalog.connection() as db:
            if not await leases.is_past_deadline(db, lease.operation_id):
                await leases.wait(db, lease, seconds=outcome.seconds, detail=outcome.detail)
                if outcome.seconds == 0:
                    await self._ports.doorbell.ring(lease.operation_id, context.operation.queue)
                return
        problem = Problem(position, "deadline_passed", f"gave up waiting: {outcome.detail}")
        await self._end(context, lease, "failed", problem)

    async def _fail(
        self, context: StepContext, lease: Lease, position: int, error: TenantryError
    ) -> None:
        problem = Problem(position, error.code, error.message)
        attempts = max(context.operation.steps[position].attempts, 1)
        _log.warning(
            "step_failed",
            operation=encode(lease.operation_id),
            step=context.operation.steps[position].name,
            attempt=attempts,
            code=error.code,
            error=error.message,
        )
        retry = may_retry(error.code, retryable=error.retryable, attempts=attempts)
        async with self._ports.catalog.connection() as db:
            if retry and not await leases.is_past_deadline(db, lease.operation_id):
                cap = self._ports.settings.engine.retry_cap_seconds
                delay = retry_delay(attempts, cap, random.random())  # noqa: S311 - jitter, no secret
                await leases.retry_later(db, lease, problem, seconds=delay)
                return
        await self._end(context, lease, "failed", problem)

    async def _end(
        self, context: StepContext, lease: Lease, state: OperationState, problem: Problem | None
    ) -> None:
        """End the operation and undo its reservations in one transaction."""
        verb = self._verbs[context.operation.kind]
        async with self._ports.catalog.transaction() as db:
            await leases.finish(db, lease, state, problem)
            if verb.abandon is not None:
                await verb.abandon(context, db)


async def pause(seconds: float) -> None:
    """Wait a moment inside a step's own lease."""
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)
