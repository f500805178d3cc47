"""Catalog, PgBouncer and agent away, one after the other, while clients work."""

import asyncio
import signal

import psycopg
import pytest

from tests.integration.router.conftest import traffic
from tests.integration.router.processes import PoolerHome
from tests.integration.router.world import Clinic, World, eventually

# The alias is gone, or the login before it was even asked.
REFUSED = "no such database|SASL authentication failed"


async def test_a_frozen_catalog_costs_no_client_anything(world: World) -> None:
    clinic = await world.published_clinic("frozen-clinic")
    async with traffic(world, clinic) as seen:
        world.catalog_server.freeze()
        try:
            await asyncio.sleep(7)  # longer than the agent waits for an answer
            async with await world.connect(clinic, world.poolers[0]) as new:
                await new.execute("SELECT 1")
        finally:
            world.catalog_server.thaw()
        await world.serving(clinic, await world.touch(clinic), 20)
    assert seen.errors == []
    assert seen.longest_gap < 2


async def test_a_catalog_that_dies_and_comes_back_is_followed_again(world: World) -> None:
    clinic = await world.published_clinic("orphan-clinic")
    late = await world.clinic("after-clinic")
    async with traffic(world, clinic) as seen:
        world.catalog_server.end(signal.SIGQUIT)
        await asyncio.sleep(1)
        world.poolers[0].agent.end(signal.SIGTERM)
        world.poolers[0].start_agent()  # it starts without a catalog and must change nothing
        await asyncio.sleep(2)
        async with await world.connect(clinic, world.poolers[0]) as new:
            await new.execute("SELECT 1")
        world.catalog_server.start()
        await eventually(lambda: _answers(world))
        await world.serving(late, await world.publish(late), 30)
    assert seen.errors == []
    for pooler in world.poolers:
        async with await world.connect(late, pooler) as client:
            await client.execute("SELECT 1")


async def _answers(world: World) -> bool:
    try:
        return (await world.pooler("p1")).name == "p1"
    except Exception:  # noqa: BLE001 - any error means that it does not answer yet
        return False


async def test_a_new_pgbouncer_gets_what_was_published_while_it_was_away(world: World) -> None:
    clinic = await world.published_clinic("present-clinic")
    missed = await world.clinic("missed-clinic")
    gone = await world.published_clinic("gone-clinic")
    home = world.poolers[0]
    home.pgbouncer.end(signal.SIGKILL)
    await world.publish(missed)
    version = await world.touch(gone, "withdrawn")
    await eventually(lambda: _lost(world, home))
    assert (await world.pooler(home.settings.name)).served_version < version
    # What is on disk is already right when PgBouncer starts, even before anybody looks.
    await eventually(lambda: _on_disk(home, missed, gone))
    home.start_pgbouncer()
    took = await world.serving(clinic, version)
    print(f"a new PgBouncer is verified and acknowledged {took * 1000:.0f} ms after its start")
    for each in (clinic, missed):
        async with await world.connect(each, home) as client:
            await client.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        await world.connect(gone, home)
    assert (await world.pooler(home.settings.name)).problem is None


async def test_an_agent_stops_at_once_and_catches_up_at_its_start(world: World) -> None:
    clinic = await world.published_clinic("patient-clinic")
    late = await world.clinic("later-clinic")
    home = world.poolers[1]
    async with traffic(world, clinic) as seen:
        assert home.agent.end(signal.SIGTERM) < 2
        assert home.agent.process is not None
        assert home.agent.process.returncode == 0
        version = await world.publish(late)
        home.start_agent()
        await world.serving(late, version, 20)
    assert seen.errors == []


async def test_the_log_is_json_and_without_secrets(world: World) -> None:
    clinic = await world.published_clinic("logged-clinic")
    text = world.poolers[0].agent.log.read_text()
    assert '"event": "served"' in text
    assert all(line.startswith("{") for line in text.splitlines()), text
    assert "SCRAM-SHA-256$" not in text
    assert clinic.passwords["a"].reveal() not in text
    assert world.poolers[0].settings.console_password.reveal() not in text
    assert world.catalog_server.password.reveal() not in text


async def _lost(world: World, home: PoolerHome) -> bool:
    return "console" in ((await world.pooler(home.settings.name)).problem or "")


async def _on_disk(home: PoolerHome, there: Clinic, gone: Clinic) -> bool:
    text = home.file("databases.ini").read_text()
    return f"{there.slug} = " in text and f"{gone.slug} = " not in text
