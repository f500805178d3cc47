"""The barrier: every pooler holds a tenant's clients, or none does, and never for too long."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from control_plane.adapters.clock import new_id
from control_plane.domain.errors import PoolerUnavailable
from control_plane.domain.names import database_name
from control_plane.router.barrier import pause_everywhere, resume_everywhere
from control_plane.router.pgbouncer_console import Console
from tests.integration.router.conftest import traffic
from tests.integration.router.world import Clinic, World, eventually


@pytest.fixture
async def consoles(world: World) -> AsyncIterator[list[Console]]:
    both = [Console(pooler.settings) for pooler in world.poolers]
    yield both
    for console in both:
        await console.close()


async def paused(consoles: list[Console], clinic: Clinic) -> list[tuple[bool, bool]]:
    """For each pooler, whether the two entries of the clinic are paused."""
    found = [await console.databases() for console in consoles]
    return [(d[clinic.slug].paused, d[f"{clinic.slug}_session"].paused) for d in found]


async def all_paused(consoles: list[Console], clinic: Clinic) -> bool:
    return await paused(consoles, clinic) == [(True, True)] * len(consoles)


async def none_paused(consoles: list[Console], clinic: Clinic) -> bool:
    return await paused(consoles, clinic) == [(False, False)] * len(consoles)


async def test_everybody_waits_and_goes_on_without_an_error(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("moving-clinic")
    operation = uuid4()
    async with traffic(world, clinic) as seen:
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        await pause_everywhere(
            world.catalog, clinic.id, operation_id=operation, epoch=1, seconds=10
        )
        held = time.perf_counter()
        assert await all_paused(consoles, clinic)
        await asyncio.sleep(0.5)
        answered = [at for at in seen.ended if at > held]
        assert await resume_everywhere(world.catalog, clinic.id, operation_id=operation)
        took = await eventually(lambda: none_paused(consoles, clinic))
        await asyncio.sleep(0.2)
    print(f"pause on both: {(held - started) * 1000:.1f} ms, resume: {took * 1000:.1f} ms")
    assert answered == []
    assert seen.errors == []
    assert seen.longest_gap > 0.5
    assert not await resume_everywhere(world.catalog, clinic.id, operation_id=operation)


async def test_a_cut_over_takes_the_new_address_before_it_resumes(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("switched-clinic")
    target = new_id()
    await world.make_database(clinic, target)
    async with world.catalog.connection() as db:
        await world.record_database(db, clinic, target)
    homes: list[str] = []
    client = await world.connect(clinic, world.poolers[0])

    async def ask() -> None:
        while True:
            row = await (await client.execute("SELECT current_database()")).fetchone()
            assert row is not None
            homes.append(row[0])

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.1)
    await pause_everywhere(world.catalog, clinic.id, operation_id=uuid4(), epoch=1, seconds=10)
    before = len(homes)
    await world.serving(clinic, await world.publish(clinic, target))
    await eventually(lambda: none_paused(consoles, clinic))
    await asyncio.sleep(0.3)
    asking.cancel()
    await asyncio.wait({asking})
    await client.close()
    old, new = database_name(clinic.database_id), database_name(target)
    assert set(homes[:before]) == {old}
    assert set(homes[before:]) == {new}, "a client saw the old place after the barrier"


async def test_one_silent_pooler_ends_the_pause_everywhere(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("aborted-clinic")
    world.poolers[1].agent.freeze()
    try:
        async with traffic(world, clinic) as seen:
            with pytest.raises(PoolerUnavailable, match="p2 did not pause"):
                await pause_everywhere(
                    world.catalog,
                    clinic.id,
                    operation_id=uuid4(),
                    epoch=1,
                    seconds=10,
                    answer_within=0.5,
                )
            await eventually(lambda: none_paused(consoles[:1], clinic))
            await asyncio.sleep(0.2)
        assert seen.errors == []
    finally:
        world.poolers[1].agent.thaw()
    await world.serving(clinic, await world.touch(clinic))
    assert await none_paused(consoles, clinic)


async def test_a_pause_ended_by_another_hand_is_no_success(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("swept-clinic")
    operation = uuid4()
    world.poolers[1].agent.freeze()
    try:
        barrier = asyncio.create_task(
            pause_everywhere(world.catalog, clinic.id, operation_id=operation, epoch=1, seconds=10)
        )
        await eventually(lambda: all_paused(consoles[:1], clinic))
        assert await resume_everywhere(world.catalog, clinic.id, operation_id=operation)
        with pytest.raises(PoolerUnavailable, match="ended by another hand"):
            await barrier
    finally:
        world.poolers[1].agent.thaw()
    await eventually(lambda: none_paused(consoles, clinic))


async def test_the_watchdog_resumes_without_the_catalog(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("watched-clinic")
    async with traffic(world, clinic) as seen:
        await pause_everywhere(world.catalog, clinic.id, operation_id=uuid4(), epoch=1, seconds=2)
        held = time.monotonic()
        world.catalog_server.freeze()
        try:
            assert await all_paused(consoles, clinic)
            await eventually(lambda: none_paused(consoles, clinic))
            took = time.monotonic() - held
            await asyncio.sleep(0.2)
        finally:
            world.catalog_server.thaw()
    assert 1 < took < 3
    assert seen.errors == []
    await world.serving(clinic, await world.touch(clinic), 20)


async def test_what_a_person_paused_stays_paused(world: World, consoles: list[Console]) -> None:
    clinic = await world.published_clinic("manual-clinic")
    operation = uuid4()
    assert await consoles[0].pause(clinic.slug, 5)
    await pause_everywhere(world.catalog, clinic.id, operation_id=operation, epoch=1, seconds=10)
    assert await all_paused(consoles, clinic)
    await resume_everywhere(world.catalog, clinic.id, operation_id=operation)
    await eventually(lambda: none_paused(consoles[1:], clinic))
    await world.serving(clinic, await world.touch(clinic))
    assert await paused(consoles, clinic) == [(True, False), (False, False)]
    await consoles[0].resume(clinic.slug)
    await consoles[0].resume(clinic.slug)
    assert await none_paused(consoles, clinic)


async def test_a_stuck_pause_holds_up_nobody_else(world: World, consoles: list[Console]) -> None:
    stuck = await world.published_clinic("stuck-clinic")
    quick = await world.published_clinic("quick-clinic")
    late = await world.clinic("unstuck-clinic")
    sitting = await world.connect(stuck, world.poolers[0])
    await sitting.execute("BEGIN")
    await sitting.execute("SELECT 1")
    waited = uuid4()
    waiting = asyncio.create_task(
        pause_everywhere(world.catalog, stuck.id, operation_id=waited, epoch=1, seconds=20)
    )
    await asyncio.sleep(0.2)
    async with traffic(world, quick) as seen:
        started = time.monotonic()
        operation = uuid4()
        await pause_everywhere(
            world.catalog, quick.id, operation_id=operation, epoch=1, seconds=8, answer_within=5
        )
        assert time.monotonic() - started < 3
        await resume_everywhere(world.catalog, quick.id, operation_id=operation)
        await world.serving(late, await world.publish(late))
        await eventually(lambda: none_paused(consoles, quick))
    assert seen.errors == []
    assert not waiting.done()
    await sitting.execute("COMMIT")
    await waiting
    await sitting.close()
    await resume_everywhere(world.catalog, stuck.id, operation_id=waited)
    await eventually(lambda: none_paused(consoles, stuck))


async def test_a_session_that_stays_is_never_acknowledged(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("sitting-clinic")
    async with await world.connect(clinic, world.poolers[0], session=True) as sitting:
        await sitting.execute("SELECT 1")
        with pytest.raises(PoolerUnavailable, match="p1 did not pause"):
            await pause_everywhere(
                world.catalog, clinic.id, operation_id=uuid4(), epoch=1, seconds=1
            )
        await eventually(lambda: none_paused(consoles, clinic))
        await sitting.execute("SELECT 1")


async def test_a_new_pgbouncer_is_paused_again(world: World) -> None:
    clinic = await world.published_clinic("killed-clinic")
    home = world.poolers[0]
    operation = uuid4()
    await pause_everywhere(world.catalog, clinic.id, operation_id=operation, epoch=1, seconds=20)
    home.pgbouncer.end(signal.SIGKILL)
    home.start_pgbouncer()
    console = Console(home.settings)
    took = await eventually(lambda: all_paused([console], clinic))
    print(f"paused again {took * 1000:.0f} ms after the start of the new PgBouncer")
    await resume_everywhere(world.catalog, clinic.id, operation_id=operation)
    await eventually(lambda: none_paused([console], clinic))
    await console.close()


async def test_a_new_agent_watches_over_the_old_ones_pause(
    world: World, consoles: list[Console]
) -> None:
    clinic = await world.published_clinic("adopted-clinic")
    home = world.poolers[0]
    operation = uuid4()
    await pause_everywhere(world.catalog, clinic.id, operation_id=operation, epoch=1, seconds=20)
    home.agent.end(signal.SIGKILL)
    home.start_agent()
    await world.serving(clinic, await world.touch(clinic), 20)
    assert await all_paused(consoles, clinic), "the new agent broke a pause that is wanted"
    home.agent.end(signal.SIGKILL)
    await resume_everywhere(world.catalog, clinic.id, operation_id=operation)
    await eventually(lambda: none_paused(consoles[1:], clinic))
    assert await all_paused(consoles[:1], clinic)
    home.start_agent()
    await eventually(lambda: none_paused(consoles, clinic))


async def test_a_stopped_agent_leaves_nobody_waiting(world: World, consoles: list[Console]) -> None:
    clinic = await world.published_clinic("released-clinic")
    home = world.poolers[0]
    await pause_everywhere(world.catalog, clinic.id, operation_id=uuid4(), epoch=1, seconds=3)
    home.agent.end(signal.SIGTERM)
    try:
        assert await none_paused(consoles[:1], clinic)
    finally:
        home.start_agent()
    await eventually(lambda: none_paused(consoles, clinic))
