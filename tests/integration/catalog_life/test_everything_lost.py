"""Catalog, servers, poolers, key file and every secret are lost; store and two shares are not.

What happened after the last backup of the catalog is part of it: a tenant that was made, one that
was deleted, a backup, a rotated key, and an operation that was under way.
"""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg

from deploy.local.stack import Stack
from tests.conftest import FAST_TENANTRY
from tests.driver import Driver
from tests.integration.catalog_life.lost import (
    NEW,
    OLD,
    Machine,
    driving,
    fresh_home,
    machine_of,
    only_the_store_survives,
    running,
)
from tests.integration.moves.test_move import to_the_catalog
from tests.integration.test_restores import cities, write


async def fill(driver: Driver, slug: str, *names: str) -> str:
    """A tenant with rows and a backup of them; its DSN."""
    await driver.create(slug)
    await write(driver, slug, *names)
    await driver.back_up(slug)
    return str((await driver.dsn(slug))["dsn"])


async def rows(dsn: str) -> set[str]:
    """What an application finds that still has the DSN of before."""
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        return {row["name"] for row in await connection.fetch("SELECT name FROM public.city")}
    finally:
        await connection.close()


async def live_until_the_loss(driver: Driver, machine: Machine, stack: Any) -> dict[str, str]:
    """A clinic each for what can happen around the last backup of the catalog; their DSNs."""
    dsns = {
        "steady": await fill(driver, "steady", "Leeds", "York"),
        "busy": await fill(driver, "busy", "Bath"),
        "gone": await fill(driver, "gone", "Hull"),
    }
    await until_the_pool_is_full(stack)
    await driver.settle()
    await asyncio.to_thread(stack.halt, "worker-control")
    await driver.begin("busy", "suspend")
    made = machine.json("admin", "catalog", "backup")
    assert made["tenants"] == 3
    await asyncio.to_thread(stack.restart, "worker-control")
    await driver.settle()
    await driver.run("busy", "resume")
    await write(driver, "steady", "Ripon")
    await driver.call("POST", "/v1/tenants/steady/key-rotations")
    await driver.back_up("steady")
    dsns["late"] = await fill(driver, "late", "Derby", "Crewe")
    asked = {"confirm": "gone", "grace_seconds": 0, "keep_backups_days": 0}
    await driver.call("DELETE", "/v1/tenants/gone", params=asked)
    await gone_for_good(driver, "gone")
    return dsns


async def until_the_pool_is_full(stack: Stack) -> None:
    """What is under way then is what the test begins."""
    catalog = await to_the_catalog(stack)
    target = int(FAST_TENANTRY["TENANTRY_POOL_TARGET"])
    pooled = "SELECT count(*) FROM databases WHERE purpose = 'pooled'"
    async with asyncio.timeout(60):
        while await catalog.fetchval(pooled) < target:
            await asyncio.sleep(0.1)
    await catalog.close()


async def gone_for_good(driver: Driver, slug: str) -> None:
    for _ in range(600):
        await driver.settle()
        if (await driver.api.get(f"/v1/tenants/{slug}")).status_code == 404:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{slug} is not deleted")


async def test_everything_is_lost_but_the_store_and_two_shares(tmp_path: Path) -> None:
    with fresh_home() as lost, fresh_home() as found:
        with running(lost, OLD) as stack:
            async with driving(stack) as driver:
                machine = machine_of(stack)
                dsns = await live_until_the_loss(driver, machine, stack)
                kept = {slug: await cities(driver, slug) for slug in ("steady", "busy", "late")}
            machine("admin", "keys", "escrow", "--to", str(tmp_path / "shares"))
        only_the_store_survives(lost, found)
        (tmp_path / "shares" / "share-2.txt").unlink()
        recover(found, tmp_path / "shares")
        with running(found, NEW) as stack:
            async with driving(stack) as driver:
                await bring_back(driver)
                for slug, names in kept.items():
                    assert await rows(dsns[slug]) == names
                await leave_nothing_behind(driver, machine_of(stack))


def recover(home: Path, shares: Path) -> None:
    """The catalog, out of the store, on a machine whose servers are new and empty."""
    with running(home, NEW, application=False) as stack:
        machine = Machine(stack.facts()["environment"])
        given = [f"--from-shares={shares / f'share-{n}.txt'}" for n in (1, 3)]
        machine("admin", "keys", "rebuild", *given)
        (listed,) = machine.json("admin", "catalog", "list")
        restored = machine.json("admin", "catalog", "restore")
        assert restored["id"] == listed["id"]
        assert machine.json("admin", "catalog", "restore") == restored
        refused = machine.run("admin", "catalog", "backup")
        assert "admin catalog accept" in refused.stderr
        foretold = machine.json("admin", "catalog", "accept", "--dry-run")
        report = machine.json("admin", "catalog", "accept")
        assert report == foretold
        assert [(one["kind"], one["subject"]) for one in report["operations_ended"]] == [
            ("suspend", "busy")
        ]
        assert report["tenants_adopted"] == ["late"]
        assert report["tenants_without_keys"] == ["gone"]
        assert (report["backups_found"], report["backups_missing"]) == (1, 1)
        assert report["keys_found"] == 1
        assert {one["purpose"] for one in report["databases_forgotten"]} == {"pooled"}
        assert machine.run("admin", "catalog", "accept").returncode == 4
        again = machine.run("admin", "catalog", "restore")
        assert (again.returncode, "is not empty" in again.stderr) == (4, True)


async def bring_back(driver: Driver) -> None:
    """Each clinic on a new server, under the name and the logins it had."""
    body = {"target": "in_place", "server": "pg-c", "source_lost": True}
    for slug in ("steady", "busy"):
        assert (await driver.call("GET", f"/v1/tenants/{slug}"))["state"] == "active"
        begun = await driver.call("POST", f"/v1/tenants/{slug}/restores", json=body)
        await driver.finish(begun, 180)
    assert (await driver.call("GET", "/v1/tenants/late"))["state"] == "archived"
    await driver.finish(await driver.call("DELETE", "/v1/tenants/late/archives"), 180)


async def leave_nothing_behind(driver: Driver, machine: Machine) -> None:
    """``check`` names what is left, and what it says of each leads to a clean one."""
    await driver.settle()
    found = {(one["subject"], one["code"]): one["remedy"] for one in await driver.findings()}
    assert found.keys() == {("pg-a", "I-1"), ("gone", "I-5")}
    assert "forget-tenant" in found["gone", "I-5"]
    refused = machine.run("admin", "catalog", "forget-server", "pg-a")
    assert (refused.returncode, "holds 1 tenants" in refused.stderr) == (4, True)
    refused = machine.run("admin", "catalog", "forget-tenant", "steady")
    assert (refused.returncode, "has a key" in refused.stderr) == (4, True)
    machine("admin", "catalog", "forget-tenant", "gone")
    machine("admin", "catalog", "forget-server", "pg-a")
    await driver.assert_clean()
