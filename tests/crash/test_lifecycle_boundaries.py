"""The ends of tenants' lives, the worker failed before and after every step, in both ways.

These verbs are long: each tenant walks into several crash points, far from each other.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pyrage  # type: ignore[import-untyped]  # it comes without stubs
import pytest

from control_plane.domain.plans import Kind
from tests.crash.test_backup_boundaries import cities, finish, write
from tests.crash.test_step_boundaries import (
    ACTIONS,
    assert_every_boundary_was_hit,
    boundaries,
)
from tests.driver import Driver, fresh_slug

SECONDS = 280
pytestmark = pytest.mark.timeout(600)


async def tenants(driver: Driver, word: str, number: int) -> list[str]:
    """Tenants on both servers, each with a row."""
    slugs = [fresh_slug(f"{word}-{place}") for place in range(number)]

    async def make(place: int, slug: str) -> None:
        await driver.create(slug, server=("pg-a", "pg-b")[place % 2])
        await write(driver, slug, "Leeds")

    await asyncio.gather(*(make(*one) for one in enumerate(slugs)))
    return slugs


def arm(driver: Driver, kind: Kind, slugs: Sequence[str], action: str) -> list[Path]:
    """Every boundary of the verb, dealt out to the tenants one by one."""
    return [
        driver.arm(kind, *boundary, slugs[place % len(slugs)], action)
        for place, boundary in enumerate(boundaries(kind))
    ]


async def dsns(driver: Driver, slugs: Sequence[str]) -> dict[str, str]:
    return {slug: (await driver.dsn(slug))["dsn"] for slug in slugs}


async def states(driver: Driver, slugs: Sequence[str]) -> set[str]:
    return {(await driver.call("GET", f"/v1/tenants/{slug}"))["state"] for slug in slugs}


@pytest.mark.parametrize("action", ACTIONS)
async def test_archive_then_unarchive(driver: Driver, action: str) -> None:
    slugs = await tenants(driver, f"arch-{action[:4]}", 8)
    before = await dsns(driver, slugs)
    armed = arm(driver, "archive", slugs, action)
    begun = [await driver.call("POST", f"/v1/tenants/{slug}/archives") for slug in slugs]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    assert await states(driver, slugs) == {"archived"}
    await driver.assert_clean()
    armed = arm(driver, "unarchive", slugs, action)
    begun = [await driver.call("DELETE", f"/v1/tenants/{slug}/archives") for slug in slugs]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    assert await states(driver, slugs) == {"active"}
    assert await dsns(driver, slugs) == before
    for slug in slugs:
        assert await cities(driver, slug) == {"Leeds"}
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_delete_then_undelete(driver: Driver, action: str) -> None:
    slugs = await tenants(driver, f"del-{action[:4]}", 6)
    before = await dsns(driver, slugs)
    armed = arm(driver, "delete", slugs, action)
    begun = [
        await driver.call("DELETE", f"/v1/tenants/{slug}", params={"confirm": slug})
        for slug in slugs
    ]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    assert await states(driver, slugs) == {"deleting"}
    await driver.assert_clean()
    armed = arm(driver, "undelete", slugs, action)
    begun = [await driver.call("POST", f"/v1/tenants/{slug}/undelete") for slug in slugs]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    assert await dsns(driver, slugs) == before
    for slug in slugs:
        assert await cities(driver, slug) == {"Leeds"}
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_purge_then_shred(driver: Driver, catalog: Any, action: str) -> None:
    slugs = await tenants(driver, f"end-{action[:4]}", 4)
    armed = arm(driver, "purge", slugs, action) + arm(driver, "shred", slugs, action)
    asked = {"grace_seconds": 0, "keep_backups_days": 0, "final_backup": True}
    for slug in slugs:
        await driver.call("DELETE", f"/v1/tenants/{slug}", params={"confirm": slug, **asked})
    left = "SELECT count(*) FROM tenants WHERE slug = ANY ($1) AND state <> 'deleted'"
    async with asyncio.timeout(SECONDS):
        while await catalog.fetchval(left, slugs):
            await asyncio.sleep(0.5)
    assert [path.name for path in armed if path.exists()] == []
    for slug in slugs:
        document = (await driver.call("GET", f"/v1/tenants/{slug}/certificate"))["document"]
        assert (document["counts"]["databases"], document["counts"]["backups"]) == (1, 1)
    ended = """SELECT kind, count(*) AS number FROM operations
               WHERE subject = ANY ($1) AND kind IN ('purge', 'shred') GROUP BY 1"""
    counted = {row["kind"]: row["number"] for row in await catalog.fetch(ended, slugs)}
    assert counted == {"purge": len(slugs), "shred": len(slugs)}
    await driver.assert_clean()


@pytest.mark.parametrize("action", ACTIONS)
async def test_export(driver: Driver, action: str) -> None:
    slugs = await tenants(driver, f"exp-{action[:4]}", 4)
    identity = pyrage.x25519.Identity.generate()
    armed = arm(driver, "export", slugs, action)
    body = {"recipient": str(identity.to_public())}
    begun = [await driver.call("POST", f"/v1/tenants/{slug}/exports", json=body) for slug in slugs]
    await assert_every_boundary_was_hit(armed, await finish(driver, begun))
    async with httpx.AsyncClient() as customer:
        for slug in slugs:
            (made,) = (await driver.call("GET", f"/v1/tenants/{slug}/exports"))["items"]
            link = await driver.call("POST", f"/v1/exports/{made['id']}/links")
            sealed = (await customer.get(link["url"])).content
            assert hashlib.sha256(sealed).hexdigest() == made["sha256"]
            assert pyrage.decrypt(sealed, [identity]).startswith(b"PK")
    await driver.assert_clean()
