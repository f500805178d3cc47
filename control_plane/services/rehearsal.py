"""Dry runs: the real request, carried out and taken back."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from control_plane.catalog.pool import Connection
from control_plane.services.ports import Ports

Result = TypeVar("Result")


async def rehearse(ports: Ports, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """What ``work`` returns or raises; whatever it wrote is rolled back.

    A dry run therefore answers what the request itself would answer at this moment.
    """
    async with ports.catalog.connection() as db:
        transaction = db.transaction()
        await transaction.start()
        try:
            return await work(db)
        finally:
            await transaction.rollback()
