"""Every verb on a tenant, its worker failed before and after every step, in both ways.

All boundaries of a verb are exercised at once, each on a tenant of its own: the stack is as busy
as it would be, and the run stays short.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.plans import PLANS, Kind
from tests.driver import Driver, fresh_slug

ACTIONS = ("exception", "sigkill")
MOMENTS = ("before", "after")


def boundaries(kind: Kind) -> list[tuple[str, str]]:
    return [(step, moment) for step in PLANS[kind].steps for moment in MOMENTS]


def slugs_for(kind: Kind, action: str) -> dict[str, tuple[str, str]]:
    return {
        fresh_slug(f"{kind[:4]}-{action[:4]}-{place}"): boundary
        for place, boundary in enumerate(boundaries(kind))
    }


async def assert_every_boundary_was_hit(armed: list[Path], ended: list[dict[str, Any]]) -> None:
    left = [path.name for path in armed if path.exists()]
    assert left == [], "these crash points were never reached"
    for operation in ended:
        assert [step["state"] for step in operation["steps"]].count("failed") == 0
        assert max(step["attempts"] for step in operation["steps"]) >= 2


@pytest.mark.parametrize("action", ACTIONS)
async def test_provision(driver: Driver, action: str) -> None:
    cases = slugs_for("provision", action)
    armed = [driver.arm("provision", *place, slug, action) for slug, place in cases.items()]
    begun = [await driver.begin_create(slug) for slug in cases]
    ended = await asyncio.gather(*(driver.finish(operation) for operation in begun))
    await assert_every_boundary_was_hit(armed, ended)
    for slug in cases:
        assert (await driver.dsn(slug))["database"] == slug
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_suspend_then_resume(driver: Driver, action: str) -> None:
    cases = slugs_for("suspend", action)
    await asyncio.gather(*(driver.create(slug) for slug in cases))
    armed = [driver.arm("suspend", *place, slug, action) for slug, place in cases.items()]
    begun = [await driver.begin(slug, "suspend") for slug in cases]
    ended = await asyncio.gather(*(driver.finish(operation) for operation in begun))
    await assert_every_boundary_was_hit(armed, ended)
    await driver.assert_clean()
    again = dict(zip(cases, boundaries("resume"), strict=False))
    armed = [driver.arm("resume", *place, slug, action) for slug, place in again.items()]
    begun = [await driver.begin(slug, "resume") for slug in again]
    ended = await asyncio.gather(*(driver.finish(operation) for operation in begun))
    await assert_every_boundary_was_hit(armed, ended)
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_rotate_then_retire(driver: Driver, action: str) -> None:
    cases = slugs_for("rotate", action)
    await asyncio.gather(*(driver.create(slug) for slug in cases))
    before = {slug: (await driver.dsn(slug))["login"] for slug in cases}
    armed = [driver.arm("rotate", *place, slug, action) for slug, place in cases.items()]
    armed_later = [
        driver.arm("retire_login", *place, slug, action)
        for slug, place in zip(cases, boundaries("retire_login"), strict=False)
    ]
    begun = [await driver.begin(slug, "rotate", grace_seconds=1) for slug in cases]
    ended = await asyncio.gather(*(driver.finish(operation) for operation in begun))
    await assert_every_boundary_was_hit(armed, ended)
    retired = [await finished_retirement(driver, slug) for slug in cases]
    await assert_every_boundary_was_hit(armed_later, retired[: len(armed_later)])
    for slug in cases:
        assert (await driver.dsn(slug))["login"] != before[slug]
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_limit(driver: Driver, action: str) -> None:
    cases = slugs_for("limit", action)
    await asyncio.gather(*(driver.create(slug) for slug in cases))
    armed = [driver.arm("limit", *place, slug, action) for slug, place in cases.items()]
    wanted = {"pool_size": 2, "session_pool_size": 1, "connections": 9}
    begun = [await driver.begin(slug, "limit", **wanted) for slug in cases]
    ended = await asyncio.gather(*(driver.finish(operation) for operation in begun))
    await assert_every_boundary_was_hit(armed, ended)
    for slug in cases:
        assert (await driver.call("GET", f"/v1/tenants/{slug}/limits"))["own"] == wanted
    await driver.assert_clean()


async def finished_retirement(driver: Driver, slug: str) -> dict[str, Any]:
    for _ in range(200):
        found = await driver.operations(tenant=slug)
        retirements = [operation for operation in found if operation["kind"] == "retire_login"]
        if retirements:
            return await driver.finish(retirements[0])
        await asyncio.sleep(0.2)
    raise AssertionError(f"nothing retired the previous login of {slug}")
