"""Waiting for another operation: what it is at is told as if it were this one's own."""

from uuid import UUID

from control_plane.catalog import operations
from control_plane.domain.errors import ChainBroken
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Wait

_LOOK_SECONDS = 1.0


async def wait_for(ctx: StepContext, operation_id: UUID) -> Outcome:
    """Done once the operation has succeeded.

    When this operation is retried, one that has failed is retried with it.

    Raises:
        ChainBroken: it failed, or was cancelled.
        WrongState, OperationInProgress: it cannot be retried.
    """
    async with ctx.catalog_read() as db:
        found = await operations.get(db, operation_id)
    if found.state == "succeeded":
        return Done(f"{found.kind} {show('op', found.id)}")
    if found.live:
        return Wait(_LOOK_SECONDS, _progress(found))
    if found.state == "failed" and first_look(ctx):
        async with ctx.catalog_write() as db:
            plan = next(plan for kind, plan in PLANS.items() if kind == found.kind)
            await operations.request_retry(db, found, plan)
        await ctx.ports.doorbell.ring(found.id, found.queue)
        return Wait(_LOOK_SECONDS, f"{found.kind} {show('op', found.id)} is tried again")
    raise ChainBroken(
        f"{found.kind} {show('op', found.id)} {found.state}"
        + (f": {found.error_message}" if found.error_message else "")
    )


def first_look(ctx: StepContext) -> bool:
    """Whether the step runs for the first time since the operation began, or was retried."""
    running = next(step for step in ctx.operation.steps if step.state in ("pending", "running"))
    return running.attempts <= 1


def _progress(found: Operation) -> str:
    place, step = next(
        (place, step)
        for place, step in enumerate([*found.steps, found.steps[-1]], start=1)
        if step.state in ("pending", "running") or place > len(found.steps)
    )
    told = f" ({step.detail})" if step.detail else ""
    return f"{found.kind} {min(place, len(found.steps))}/{len(found.steps)} {step.name}{told}"
