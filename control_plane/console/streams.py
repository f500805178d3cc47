"""Live parts of pages: HTML as server-sent events, for as long as the session lives."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, suppress

from litestar.response import ServerSentEvent, ServerSentEventMessage

from control_plane.console.visits import Visit
from control_plane.domain.errors import CatalogUnavailable
from control_plane.services.sign_in import session_lives

PING_SECONDS = 15.0
_LEAVE = '<p data-leave="/console/sign-in">Your session has ended.</p>'


class Shown:
    """What a live part shows now, and whether that is its end."""

    def __init__(self, html: str, *, last: bool = False) -> None:
        self.html = html
        self.last = last


Look = Callable[[], Awaitable[Shown]]


def live(
    visit: Visit,
    watching: AbstractContextManager[asyncio.Event],
    look: Look,
    *,
    rest_seconds: float = 0.0,
) -> ServerSentEvent:
    """Events ``show`` with new HTML, then ``over``; a page swaps them in with ``sse-swap``.

    ``watching`` is ``changes.watch(operation_id)`` or ``changes.watch_all()``; of many changes
    within ``rest_seconds`` only the last is shown.
    """
    return ServerSentEvent(_events(visit, watching, look, rest_seconds))


async def _events(
    visit: Visit,
    watching: AbstractContextManager[asyncio.Event],
    look: Look,
    rest_seconds: float,
) -> AsyncGenerator[ServerSentEventMessage, None]:
    said, said_at = None, 0.0
    with watching as changed:
        while await _lives(visit):
            shown = await _look(look)
            if shown is not None and shown.html != said:
                yield ServerSentEventMessage(data=shown.html, event="show")
                said, said_at = shown.html, time.monotonic()
            if shown is not None and shown.last:
                break
            if time.monotonic() - said_at >= PING_SECONDS:
                yield ServerSentEventMessage(data=None, comment="ping")
                said_at = time.monotonic()
            await _rest(rest_seconds)
            await visit.desk.changes.wait(changed, PING_SECONDS)
        else:
            # What was shown to somebody who has left does not stay on the screen.
            yield ServerSentEventMessage(data=_LEAVE, event="show")
    yield ServerSentEventMessage(data="over", event="over")


async def _rest(seconds: float) -> None:
    """Let changes come together: a busy fleet has more of them than a person can follow."""
    if seconds:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), seconds)


async def _look(look: Look) -> Shown | None:
    """What is shown now; ``None`` while the catalog is away, for it will come back."""
    try:
        return await look()
    except CatalogUnavailable:
        return None


async def _lives(visit: Visit) -> bool:
    """Whether the session is within its limits; watching does not prolong it."""
    try:
        async with visit.ports.catalog.connection() as db:
            return await session_lives(db, visit.token)
    except CatalogUnavailable:
        return True
