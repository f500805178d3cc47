"""Start-up as steps: each waits only for the steps it names, the rest goes in parallel."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from deploy.local.problem import StackError


@dataclass(frozen=True)
class Step:
    """One piece of work of the start-up."""

    name: str
    run: Callable[[], Awaitable[None]]
    after: tuple[str, ...] = ()


async def run_steps(steps: Sequence[Step], report: Callable[[str], None]) -> None:
    """Run every step, each as soon as those it waits for are done.

    Raises:
        StackError: a step waits for one that is not there.
        ExceptionGroup: what went wrong; the other steps were cancelled.
    """
    done = {step.name: asyncio.Event() for step in steps}
    for step in steps:
        for name in step.after:
            if name not in done:
                raise StackError(f"the step {step.name} waits for {name}, which is no step")

    async def run(step: Step) -> None:
        for name in step.after:
            await done[name].wait()
        began = time.monotonic()
        await step.run()
        report(f"{step.name} ({time.monotonic() - began:.1f} s)")
        done[step.name].set()

    async with asyncio.TaskGroup() as group:
        for step in steps:
            group.create_task(run(step), name=step.name)
