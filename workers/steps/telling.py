"""Long work says how far it has come: whatever it said last is on record about every second."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from control_plane.domain.errors import CatalogUnavailable, LeaseLost
from workers.engine.step import StepContext

_EVERY_SECONDS = 1.0

Tell = Callable[[str], None]


@asynccontextmanager
async def telling(ctx: StepContext) -> AsyncIterator[Tell]:
    """A function that takes news from any thread; the newest is written for those who watch."""
    news = [""]

    def tell(words: str) -> None:
        news[0] = words

    writing = asyncio.create_task(_write(ctx, news))
    try:
        yield tell
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing


async def _write(ctx: StepContext, news: list[str]) -> None:
    """A catalog that is away costs news, nothing else; who lost the lease has nothing to say."""
    written = ""
    with suppress(LeaseLost):
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), _EVERY_SECONDS)
            if news[0] != written:
                written = news[0]
                with suppress(CatalogUnavailable):
                    await ctx.tell(written)


def size_words(size: float) -> str:
    """A number of bytes for people."""
    for unit, bytes_in_it in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_in_it:
            return f"{size / bytes_in_it:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
