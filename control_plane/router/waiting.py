"""Waiting for an event or for a while, and how long to wait after failures."""

import asyncio


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def rest(seconds: float) -> None:
    """Let ``seconds`` pass."""
    await happens(asyncio.Event(), seconds)


class Backoff:
    """Seconds to wait after each failure in a row: doubling from ``first`` up to ``longest``."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def grow(self) -> float:
        """The wait after one more failure."""
        now, self._next = self._next, min(self._next * 2, self._longest)
        return now

    def reset(self) -> None:
        """Forget the failures."""
        self._next = self._first
