"""Moves to and from servers whose administrators are no superusers."""

import asyncio
from typing import Any

from tests.conftest import Cli
from tests.driver import Driver, fresh_slug
from tests.integration.limited.conftest import Enrolled
from tests.integration.limited.test_life import (
    assert_verified,
    delete,
    looked_after,
    tenant,
)
from tests.integration.test_restores import cities, write

MOVE_SECONDS = 180.0


async def begin(driver: Driver, slug: str, server: str, **more: Any) -> dict[str, Any]:
    body = {"server": server, **more}
    operation: dict[str, Any] = await driver.call("POST", f"/v1/tenants/{slug}/moves", json=body)
    return operation


async def move(driver: Driver, slug: str, server: str, **more: Any) -> None:
    await driver.finish(await begin(driver, slug, server, **more), MOVE_SECONDS)
    assert (await tenant(driver, slug))["server"] == server


async def finish(driver: Driver, slug: str) -> None:
    path, body = f"/v1/tenants/{slug}/moves/finish", {"without_backup": True}
    await driver.finish(await driver.call("POST", path, json=body))


async def test_there_back_there_again_and_away(
    driver: Driver, limited: Enrolled, catalog: Any, cli: Cli
) -> None:
    """From a superuser's server of Postgres 15, back to it, and on to one of Postgres 18."""
    slug = fresh_slug("travels")
    await driver.create(slug, server="pg-a")
    await write(driver, slug, "Leeds")
    await move(driver, slug, limited.name)
    await write(driver, slug, "York")
    back = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
    await driver.finish(back, MOVE_SECONDS)
    assert (await tenant(driver, slug))["server"] == "pg-a"
    assert await cities(driver, slug) == {"Leeds", "York"}
    await driver.assert_clean()
    await move(driver, slug, limited.name)
    await finish(driver, slug)
    await looked_after(catalog, slug)
    await write(driver, slug, "Hull")
    await move(driver, slug, "pg-b")
    await write(driver, slug, "Bath")
    await finish(driver, slug)
    assert await cities(driver, slug) == {"Leeds", "York", "Hull", "Bath"}
    await looked_after(catalog, slug)
    await assert_verified(cli, slug)
    await driver.assert_clean()
    await delete(driver, catalog, slug)


async def test_where_nothing_streams_a_move_is_refused_and_goes_offline(
    driver: Driver, managed: Enrolled, catalog: Any
) -> None:
    """It has the role that would let it stream elsewhere: that is put to the test first."""
    slug = fresh_slug("stays")
    await driver.create(slug, server="pg-b")
    await write(driver, slug, "Leeds")
    for source, target, which in (
        ("pg-b", managed.name, "target"),
        (managed.name, "pg-b", "source"),
    ):
        ended = await driver.over(await begin(driver, slug, target))
        assert (ended["state"], ended["error"]["code"]) == ("failed", "server_unsuitable")
        assert f"the administrator of the {which} lacks REPLICATION" in ended["error"]["message"]
        assert [step["state"] for step in ended["steps"]].count("done") == 0
        await driver.settle()
        assert (await tenant(driver, slug))["server"] == source
        await driver.assert_clean()
        await move(driver, slug, target, offline=True)
        await write(driver, slug, f"by {which}")
        await finish(driver, slug)
    assert await cities(driver, slug) == {"Leeds", "by target", "by source"}
    await driver.assert_clean()
    await delete(driver, catalog, slug)


async def test_row_security_is_not_backed_up_or_moved_by_halves(
    driver: Driver, managed: Enrolled, catalog: Any
) -> None:
    slug = fresh_slug("guarded")
    await driver.create(slug, server=managed.name)
    name = await catalog.fetchval(
        """SELECT name FROM databases WHERE purpose = 'primary'
              AND tenant_id = (SELECT id FROM tenants WHERE slug = $1)""",
        slug,
    )
    inside = await managed.cluster.superuser(name)
    await inside.execute("ALTER TABLE public.city ENABLE ROW LEVEL SECURITY")
    backup = await driver.call("POST", f"/v1/tenants/{slug}/backups")
    ended = await driver.over(backup, 180)
    assert ended["state"] == "failed"
    assert "row security would hide rows of public.city" in ended["error"]["message"]
    refused = await driver.over(await begin(driver, slug, "pg-b", offline=True))
    assert "the administrator of the source lacks BYPASSRLS" in refused["error"]["message"]
    await inside.execute("ALTER TABLE public.city DISABLE ROW LEVEL SECURITY")
    await inside.close()
    await asyncio.wait_for(driver.settle(), 120)
    await delete(driver, catalog, slug)
    await driver.assert_clean()
