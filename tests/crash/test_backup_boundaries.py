"""Backups, drills and restores, their worker failed before and after every step, in both ways."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.crash.test_step_boundaries import (
    ACTIONS,
    assert_every_boundary_was_hit,
    boundaries,
    slugs_for,
)
from tests.driver import Driver, fresh_slug

SECONDS = 240
ROW = "INSERT INTO public.city (country_code, region, name) VALUES ('GB', 'England', $1)"


async def connected(driver: Driver, slug: str) -> "asyncpg.Connection[asyncpg.Record]":
    dsn = await driver.dsn(slug)
    return await asyncpg.connect(dsn["dsn"], statement_cache_size=0)


async def write(driver: Driver, slug: str, name: str) -> None:
    connection = await connected(driver, slug)
    async with connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', 'dr-ada', true)")
        await connection.execute(ROW, name)
    await connection.close()


async def cities(driver: Driver, slug: str) -> set[str]:
    connection = await connected(driver, slug)
    found = {row["name"] for row in await connection.fetch("SELECT name FROM public.city")}
    await connection.close()
    return found


async def prepared(driver: Driver, slugs: list[str]) -> dict[str, str]:
    """Tenants with one row that is in their backup and one that is not; the backups."""

    async def prepare(slug: str, number: int) -> str:
        await driver.create(slug, server=("pg-a", "pg-b")[number % 2])
        await write(driver, slug, "Leeds")
        backup = await driver.back_up(slug)
        await write(driver, slug, "York")
        return backup

    made = await asyncio.gather(*(prepare(slug, place) for place, slug in enumerate(slugs)))
    return dict(zip(slugs, made, strict=True))


async def finish(driver: Driver, begun: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(driver.finish(one, SECONDS) for one in begun)))


@pytest.mark.parametrize("action", ACTIONS)
async def test_backup_then_verify(driver: Driver, action: str) -> None:
    cases = slugs_for("verify_backup", action)
    slugs = list(cases)
    await asyncio.gather(*(driver.create(slug) for slug in slugs))
    first = dict(zip(slugs, boundaries("backup"), strict=False))
    armed = [driver.arm("backup", *place, slug, action) for slug, place in first.items()]
    begun = [await driver.begin(slug, "backup") for slug in slugs]
    ended = await finish(driver, begun)
    await assert_every_boundary_was_hit(armed, ended[: len(first)])
    for slug in slugs:
        page = await driver.call("GET", f"/v1/tenants/{slug}/backups")
        assert [backup["state"] for backup in page["items"]] == ["complete"]
    await driver.assert_clean()
    made = {
        slug: (await driver.call("GET", f"/v1/tenants/{slug}/backups"))["items"][0]["id"]
        for slug in slugs
    }
    armed = [driver.arm("verify_backup", *place, slug, action) for slug, place in cases.items()]
    ended = await finish(driver, [await driver.verify(made[slug]) for slug in slugs])
    await assert_every_boundary_was_hit(armed, ended)
    for backup in made.values():
        shown = await driver.call("GET", f"/v1/backups/{backup}")
        assert [drill["state"] for drill in shown["drills"]] == ["passed"]
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_restore_in_place_then_undo(driver: Driver, action: str) -> None:
    cases = slugs_for("restore", action)
    made = await prepared(driver, list(cases))
    before = {slug: (await driver.dsn(slug))["dsn"] for slug in cases}
    armed = [driver.arm("restore", *place, slug, action) for slug, place in cases.items()]
    begun = [
        await driver.begin(slug, "restore", backup_id=made[slug], target="in_place")
        for slug in cases
    ]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    for slug in cases:
        assert await cities(driver, slug) == {"Leeds"}
        assert (await driver.dsn(slug))["dsn"] == before[slug]
    await driver.assert_clean()
    back = dict(zip(cases, boundaries("restore_undo"), strict=False))
    armed = [driver.arm("restore_undo", *place, slug, action) for slug, place in back.items()]
    begun = [await driver.begin(slug, "restore_undo") for slug in back]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    for slug in back:
        assert await cities(driver, slug) == {"Leeds", "York"}
        assert (await driver.dsn(slug))["dsn"] == before[slug]
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_restore_beside(driver: Driver, action: str) -> None:
    source = fresh_slug("beside-source")
    made = await prepared(driver, [source])
    cases = slugs_for("restore_beside", action)
    armed = [driver.arm("restore_beside", *place, slug, action) for slug, place in cases.items()]
    begun = [
        await driver.begin(source, "restore", backup_id=made[source], target={"slug": slug})
        for slug in cases
    ]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    for slug in cases:
        assert await cities(driver, slug) == {"Leeds"}
    assert await cities(driver, source) == {"Leeds", "York"}
    await driver.assert_clean()
