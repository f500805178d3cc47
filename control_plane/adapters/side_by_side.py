"""Several things at the same time, of which the first failure ends all."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def side_by_side(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all parts to their end. An error of one, or cancelling this, ends the others.

    It is raised as it is (a ``TaskGroup`` would wrap it), once all of them have ended.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
