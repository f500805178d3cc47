"""A server that must be verified is verified: by its authority and by its name (S-15)."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.integration.router.processes import PoolerHome
from tests.integration.router.world import Clinic, World, eventually

CELL = "cell-tls"


@pytest.fixture
async def verified(world: World) -> AsyncIterator[tuple[PoolerHome, Clinic]]:
    """A pooler of its own cell, whose only server asks for verification."""
    home = PoolerHome(world.base, "p-tls", CELL, world.environment)
    home.prepare()
    home.start_pgbouncer()
    home.start_agent()
    try:
        clinic = await world.clinic("verified-clinic", cell=CELL, tls="verify-full")
        await eventually(lambda: _registered(world))
        await world.serving(clinic, await world.publish(clinic))
        yield home, clinic
    finally:
        home.stop()


async def _registered(world: World) -> bool:
    async with world.catalog.connection() as db:
        return bool(await db.fetchval("SELECT count(*) FROM poolers WHERE name = 'p-tls'"))


async def test_only_the_right_name_is_spoken_to(
    world: World, verified: tuple[PoolerHome, Clinic]
) -> None:
    home, clinic = verified
    async with await world.connect(clinic, home) as client:
        found = await client.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert await found.fetchone() == (True,)
    async with world.catalog.connection() as db:
        # The certificate names localhost, so the same server by its address is a stranger.
        await db.execute("UPDATE servers SET host = '127.0.0.1' WHERE tls = 'verify-full'")
    await world.serving(clinic, await world.touch(clinic))
    with pytest.raises(psycopg.OperationalError):
        await world.connect(clinic, home, seconds=3)
    assert "name `127.0.0.1' not present in server certificate" in home.pgbouncer.log.read_text()
