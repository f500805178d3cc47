"""The system's own operations, failed before and after every step.

Their subjects are generated names, so every crash point waits for whichever operation comes: one
operation walks into all of them, one after the other.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.plans import PLANS, Kind
from tests.driver import Driver, fresh_slug

ACTIONS = ("exception", "sigkill")
PATIENCE_SECONDS = 120.0


def arm_every_boundary(driver: Driver, kind: Kind, action: str) -> list[Path]:
    return [
        driver.arm(kind, step, moment, "any", action)
        for step in PLANS[kind].steps
        for moment in ("before", "after")
    ]


async def until_all_were_hit(armed: list[Path]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := [path.name for path in armed if path.exists()]:
        assert time.monotonic() < deadline, f"never reached: {left}"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("action", ACTIONS)
async def test_prepare(driver: Driver, action: str) -> None:
    await driver.settle()
    armed = arm_every_boundary(driver, "prepare", action)
    await driver.create(fresh_slug("drains-the-pool"), server="pg-a")
    await until_all_were_hit(armed)
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_reclaim(driver: Driver, catalog: Any, action: str) -> None:
    await driver.settle()
    armed = arm_every_boundary(driver, "reclaim", action)
    condemned = await catalog.fetchval(
        """UPDATE databases SET purpose = 'condemned' WHERE id =
           (SELECT id FROM databases WHERE purpose = 'pooled' LIMIT 1) RETURNING name"""
    )
    assert condemned is not None
    repaired = await driver.call("POST", "/v1/check/repairs", timeout=60)
    assert [finding["subject"] for finding in repaired["repaired"]] == [condemned]
    await until_all_were_hit(armed)
    await driver.assert_clean()
    assert not await catalog.fetchval("SELECT count(*) FROM databases WHERE name = $1", condemned)


@pytest.mark.parametrize("action", ACTIONS)
async def test_enrol(driver: Driver, catalog: Any, action: str) -> None:
    """Enrolment again, as after a change of the template."""
    await driver.settle()
    armed = arm_every_boundary(driver, "enrol", action)
    await catalog.execute(
        "DELETE FROM templates WHERE server_id = (SELECT id FROM servers WHERE name = 'pg-b')"
    )
    await until_all_were_hit(armed)
    await driver.assert_clean()
    await driver.create(fresh_slug("after-enrol"), server="pg-b")
