"""The worse half of a failover: the standby that takes over lacks the catalog's last commits.

What the catalog has forgotten is still there: no row is lost, nobody else is given it, and nothing
drops it. ``check`` names it.
"""

import asyncio
import signal
from collections.abc import Iterator

import asyncpg
import pytest

from deploy.local.options import DEFAULT_SERVERS
from deploy.local.stack import Stack
from tests.conftest import FAST_TENANTRY
from tests.crash.test_data_plane import api_is_back
from tests.driver import Driver
from tests.integration.catalog_life.lost import driving, fresh_home, running
from tests.integration.catalog_life.test_failover import administrator, ports_of
from tests.integration.moves.test_move import to_the_catalog
from tests.integration.test_restores import cities, write

POOLED = int(FAST_TENANTRY["TENANTRY_POOL_TARGET"])


@pytest.fixture
def doubled() -> Iterator[Stack]:
    """A stack whose catalog has a standby that is not synchronous."""
    with fresh_home() as home, running(home, DEFAULT_SERVERS, doubled=True) as started:
        yield started


async def until_the_pool_is_full(stack: Stack, server: str) -> None:
    """What is made next on this server comes out of the pool."""
    catalog = await to_the_catalog(stack)
    pooled = """SELECT count(*) FROM databases d JOIN servers s ON s.id = d.server_id
                WHERE d.purpose = 'pooled' AND s.name = $1"""
    async with asyncio.timeout(60):
        while await catalog.fetchval(pooled, server) < POOLED:
            await asyncio.sleep(0.1)
    await catalog.close()


async def fall_behind(stack: Stack, port: int) -> None:
    """The standby hears nothing of its primary any more."""
    async with administrator(stack, port, "postgres") as admin:
        await admin.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await admin.execute("SELECT pg_reload_conf()")
        while await admin.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
            await asyncio.sleep(0.05)


async def test_what_the_catalog_forgot_is_nobody_elses(doubled: Stack) -> None:
    _, second = ports_of(doubled)
    async with driving(doubled) as driver:
        for slug in ("rotated", "moved"):
            await driver.create(slug, server="pg-a")
            await write(driver, slug, "before")
        await until_the_pool_is_full(doubled, "pg-a")
        await driver.settle()
        await fall_behind(doubled, second)
        places = await what_is_forgotten(driver)
        await fail_over(doubled, driver, second)
        await driver.settle()
        assert (await driver.api.get("/v1/tenants/forgotten")).status_code == 404
        assert await cities(driver, "rotated") == {"before", "since"}
        await nobody_is_given_it(driver)
        await driver.call("POST", "/v1/check/repairs", timeout=60)
        with pytest.raises(asyncpg.PostgresError, match="not permitted to log in"):
            await cities(driver, "moved")
        assert await rows(doubled, "pg-a", places["forgotten"]) == {"since"}
        assert await rows(doubled, "pg-b", places["moved"]) == {"before", "since"}
        found = {(one["code"], one["subject"], one["message"]) for one in await driver.findings()}
        assert {subject for code, subject, _ in found if code == "I-1"} == {"moved"}
        for server, name in (("pg-a", places["forgotten"]), ("pg-b", places["moved"])):
            message = f"database {name} on {server} belongs to nobody in the catalog"
            assert ("I-3", server, message) in found


async def what_is_forgotten(driver: Driver) -> dict[str, str]:
    """A tenant is made, one gets new credentials, one moves; the databases of two of them."""
    await driver.create("forgotten", server="pg-a")
    await driver.run("rotated", "rotate", grace_seconds=3600)
    begun = await driver.call("POST", "/v1/tenants/moved/moves", json={"server": "pg-b"})
    await driver.finish(begun, 180)
    places = {}
    for slug in ("forgotten", "rotated", "moved"):
        await write(driver, slug, "since")
        connection = await asyncpg.connect((await driver.dsn(slug))["dsn"], statement_cache_size=0)
        places[slug] = str(await connection.fetchval("SELECT current_database()"))
        await connection.close()
    return places


async def fail_over(stack: Stack, driver: Driver, port: int) -> None:
    await asyncio.to_thread(stack.kill, "catalog", signal.SIGKILL)
    async with administrator(stack, port, "postgres") as admin:
        assert await admin.fetchval("SELECT pg_promote()")
    await asyncio.to_thread(stack.wait_running, "catalog")
    await api_is_back(driver)


async def nobody_is_given_it(driver: Driver) -> None:
    """Who is to have a database that is somebody's gets an error, everybody else an empty one."""
    codes = []
    for number in range(POOLED + 1):
        begun = await driver.begin_create(f"new-{number}", server="pg-a")
        ended = await driver.over(begun)
        if ended["state"] == "succeeded":
            assert await cities(driver, f"new-{number}") == set()
        else:
            codes.append(ended["error"]["code"])
    assert codes == ["tenant_mismatch"]
    await driver.settle()


async def rows(stack: Stack, server: str, database: str) -> set[str]:
    (found,) = (one for one in stack.facts()["servers"] if one["name"] == server)
    connection = await asyncpg.connect(
        host=found["host"],
        port=found["port"],
        user=found["admin_user"],
        password=stack.layout.secret(f"{server}.password").read_text().strip(),
        database=database,
    )
    try:
        return {row["name"] for row in await connection.fetch("SELECT name FROM public.city")}
    finally:
        await connection.close()
