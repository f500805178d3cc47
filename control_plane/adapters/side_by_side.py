"""Several things at the same time, of which the first failure ends all."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def side_by_side(first: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, object]) -> T:
    """Run all to their end; what ``first`` returns.

    An error of one, or cancelling this, ends the others. It is raised as it is (a ``TaskGroup``
    would wrap it), once all of them have ended.
    """
    main = asyncio.create_task(first)
    tasks = [main, *(asyncio.create_task(other) for other in others)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return main.result()
