"""F2: a worker of a move that freezes past its lease, is overtaken, and wakes up."""

import asyncio
from typing import Any

import pytest

from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.moves.faults import SECONDS, frozen_worker, overtaken, prove, thawed_at_last
from tests.integration.moves.test_move import begin, look, make  # noqa: F401 - a fixture
from tests.integration.moves.writers import writing

PLACES = (
    ("copy_data", "rows.after"),
    ("wait_caught_up", "before"),
    ("switch_route", "fence.after"),
    ("switch_route", "commit.before"),
    ("switch_route", "commit.after"),
    ("start_way_back", "before"),
)
BACK = PLACES[2:5]


async def test_overtaken_at_every_place_that_matters(
    driver: Driver,
    stack: Stack,
    catalog: Any,
    look: Any,  # noqa: F811
) -> None:
    """Each wakes while its successor works, and stands aside."""
    slug = await make(driver, look, "overtaken")
    async with writing(driver, slug, sessions=0) as fleet:
        armed = [driver.arm("move", *place, slug, "sigstop") for place in PLACES]
        assert await overtaken(catalog, stack, await begin(driver, slug)) == len(PLACES)
        assert [path.name for path in armed if path.exists()] == []
        await prove(driver, stack, look, fleet, "pg-b")
        armed = [driver.arm("move_reverse", *place, slug, "sigstop") for place in BACK]
        back = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
        assert await overtaken(catalog, stack, back) == len(BACK)
        assert [path.name for path in armed if path.exists()] == []
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")


@pytest.mark.parametrize("place", ["fence.after", "commit.before"])
async def test_one_that_wakes_when_all_is_over_changes_nothing(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
    place: str,
) -> None:
    slug = await make(driver, look, f"late-{place.replace('.', '-')}")
    async with writing(driver, slug, sessions=0) as fleet:
        driver.arm("move", "switch_route", place, slug, "sigstop")
        operation = await begin(driver, slug)
        with thawed_at_last(await frozen_worker(stack)):
            ended = await driver.finish(operation, SECONDS)
            there = len(fleet.acked())
        # The sleeper is awake when its worker takes another operation.
        await driver.run(slug, "backup")
        while len(fleet.acked()) < there + 50:
            await asyncio.sleep(0.02)
        assert await driver.call("GET", f"/v1/operations/{operation['id']}") == ended
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-b")
