"""Whether this process can do its work."""

import asyncio
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from control_plane.config import Settings
from control_plane.services.ports import Ports

_PATIENCE_SECONDS = 2.0
_REDIS_PORT = 6379
_ANSWERS = (b"+PONG", b"-NOAUTH", b"-LOADING")


class Readiness(msgspec.Struct, frozen=True):
    """``redis`` is only reported: without it requests are accepted and start a little later."""

    catalog: Literal["ok"]
    redis: Literal["ok", "away"]


async def look_around(ports: Ports) -> Readiness:
    """The state of what this process stands on.

    Raises:
        CatalogUnavailable: the catalog does not answer.
    """
    async with ports.catalog.connection() as db:
        await db.fetchval("SELECT 1", timeout=_PATIENCE_SECONDS)
    redis = await redis_answers(ports.settings)
    return Readiness(catalog="ok", redis="ok" if redis else "away")


async def redis_answers(settings: Settings) -> bool:
    """Whether somebody speaks Redis at the broker's address; no login is needed to know."""
    address = urlsplit(settings.redis_url)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port or _REDIS_PORT
            )
            try:
                writer.write(b"PING\r\n")
                await writer.drain()
                return (await reader.readline()).startswith(_ANSWERS)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
