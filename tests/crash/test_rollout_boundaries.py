"""Migrations, rollouts and surveys, their worker failed before and after every step.

The same crash points are reached when a rollout migrates many tenants in bulk: whatever a dead
worker leaves of a batch is finished one by one.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deploy.local.stack import Stack
from tests.crash.test_step_boundaries import (
    ACTIONS,
    assert_every_boundary_was_hit,
    boundaries,
)
from tests.crash.test_upkeep_boundaries import arm_every_boundary, until_all_were_hit
from tests.driver import Driver
from tests.laboratory import Laboratory

# In bulk a schema is looked at inside of the migration, with nothing before it to be reached.
REACHED_IN_BULK = [
    (step, moment)
    for step, moment in boundaries("migrate")
    if (step, moment) != ("verify_schema", "before")
]


@pytest.fixture
async def lab(stack: Stack, driver: Driver) -> AsyncIterator[Laboratory]:
    laboratory = Laboratory(stack, driver)
    yield laboratory
    await laboratory.leave()


@pytest.mark.parametrize("action", ACTIONS)
async def test_migrate(lab: Laboratory, action: str) -> None:
    places = boundaries("migrate")
    slugs = await lab.tenants(len(places), f"one-{action[:4]}")
    wanted = lab.add_column()
    armed = [
        lab.driver.arm("migrate", *place, slug, action)
        for slug, place in zip(slugs, places, strict=True)
    ]
    begun = [
        await lab.driver.call("POST", f"/v1/tenants/{slug}/migrations", json={}) for slug in slugs
    ]
    ended = await asyncio.gather(*(lab.driver.finish(operation) for operation in begun))
    await assert_every_boundary_was_hit(armed, ended)
    assert await lab.revisions(slugs) == {wanted}
    await lab.driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_migrate_in_bulk(lab: Laboratory, action: str) -> None:
    slugs = await lab.tenants(len(REACHED_IN_BULK) + 6, f"bulk-{action[:4]}")
    wanted = lab.add_column()
    armed = [
        lab.driver.arm("migrate", *place, slug, action)
        for slug, place in zip(slugs, REACHED_IN_BULK, strict=False)
    ]
    begun = await lab.begin(f"bulk-{action[:4]}", canary=0, waves=["100%"])
    assert (await lab.finish(begun))["state"] == "succeeded"
    assert [path.name for path in armed if path.exists()] == []
    assert await lab.revisions(slugs) == {wanted}
    await lab.driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_rollout_and_its_survey(lab: Laboratory, action: str) -> None:
    slugs = await lab.tenants(4, f"all-{action[:4]}")
    wanted = lab.add_column()
    armed = arm_every_boundary(lab.driver, "rollout", action)
    armed += arm_every_boundary(lab.driver, "survey", action)
    begun = await lab.begin(f"all-{action[:4]}", canary=1, waves=["100%"])
    assert (await lab.finish(begun))["state"] == "succeeded"
    await until_all_were_hit(armed)
    assert await lab.revisions(slugs) == {wanted}
    await lab.driver.assert_clean()
