"""A copy rests while others suffer, and only then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from control_plane.adapters.move_target import ensure_marker
from control_plane.adapters.pace import Pace
from control_plane.adapters.postgres_server import Connection, connect
from tests.integration.moves.journey import SESSION
from tests.integration.tenant_server.clinic import Clinic, Place, provision


@pytest.fixture(scope="module")
async def clinic(source: Place) -> Clinic:
    made = await provision(source)
    async with made.inside() as inside:
        await ensure_marker(inside, made.roles)
    return made


@asynccontextmanager
async def probing(clinic: Clinic) -> AsyncIterator[Connection]:
    connection = await connect(clinic.place.server.address(), clinic.database, SESSION)
    try:
        yield connection
    finally:
        connection.terminate()


async def probes(connection: Connection, more: int) -> None:
    """Wait until so many probes have been written."""
    count = "SELECT count(*) FROM cp_meta.move_marker"
    there = await connection.fetchval(count)
    while await connection.fetchval(count) < there + more:
        await asyncio.sleep(0.02)


async def test_on_a_server_that_is_quiet_it_never_rests(clinic: Clinic) -> None:
    """However slow its own writes are there."""
    pace = Pace()
    async with (
        probing(clinic) as probe,
        probing(clinic) as watch,
        probing(clinic) as slowing,
        pace.kept(probe),
    ):
        async with slowing.transaction():
            await slowing.execute("LOCK cp_meta.move_marker IN SHARE MODE")
            await slowing.execute("SELECT pg_sleep(0.4)")
        await probes(watch, 3)
        await pace.turn()
    assert pace.rested == 0


async def test_while_others_wait_it_rests_and_goes_on_in_between(clinic: Clinic) -> None:
    pace = Pace()
    async with probing(clinic) as probe, probing(clinic) as slowing, clinic.inside() as other:
        await other.execute("SET application_name = 'an application'")
        working = asyncio.create_task(other.execute("SELECT pg_sleep(600)"))
        async with pace.kept(probe):
            await pace.turn()
            async with slowing.transaction():
                await slowing.execute("LOCK cp_meta.move_marker IN SHARE MODE")
                while pace.rested < 1:
                    # It is let go on between two rests.
                    await pace.turn()
                    await asyncio.sleep(0.02)
            await pace.turn()
        await pace.turn()
        other.terminate()
        await asyncio.wait({working})
        assert working.exception() is not None
    assert pace.rested >= 1
