"""A catalog that has forgotten a switch: what serves a tenant is not thrown away with what it was.

The catalog is not made to forget; the scratch database of a restore is made to say that it serves,
which it only does after its switch.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from control_plane.adapters.scratch_database import loader_of
from deploy.local.stack import Stack
from tests.crash.test_backup_boundaries import cities, prepared
from tests.driver import Driver, fresh_slug

PLACE = ("restore", "load_dump", "before")
SERVES = """
CREATE SCHEMA IF NOT EXISTS cp_meta;
CREATE TABLE IF NOT EXISTS cp_meta.identity (
    only_row boolean PRIMARY KEY DEFAULT true, tenant_id uuid, generation bigint, state text,
    system_identifier bigint);
INSERT INTO cp_meta.identity SELECT true, gen_random_uuid(), 2, 'primary', system_identifier
  FROM pg_control_system() ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS public.since (n integer);
"""


@asynccontextmanager
async def inside(
    stack: Stack, server: str, database: str
) -> "AsyncIterator[asyncpg.Connection[Any]]":
    (found,) = (one for one in stack.facts()["servers"] if one["name"] == server)
    connection = await asyncpg.connect(
        host=found["host"],
        port=found["port"],
        user=found["admin_user"],
        password=stack.layout.secret(f"{server}.password").read_text().strip(),
        database=database,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def held_with_its_scratch(driver: Driver, begun: dict[str, Any], slug: str) -> str:
    """Keep the restore before its load until its scratch database is there; the name of that."""
    while True:
        driver.arm(*PLACE, slug, "exception")
        operation = await driver.call("GET", f"/v1/operations/{begun['id']}")
        (made,) = (one for one in operation["steps"] if one["name"] == "create_scratch")
        if made["state"] == "done":
            return str(made["detail"]).split()[1]
        await asyncio.sleep(0.02)


async def test_a_scratch_database_that_serves_is_kept(driver: Driver, stack: Stack) -> None:
    slug = fresh_slug("served")
    backup = (await prepared(driver, [slug]))[slug]
    armed = driver.arm(*PLACE, slug, "exception")
    begun = await driver.begin(slug, "restore", backup_id=backup, target="in_place")
    scratch = await held_with_its_scratch(driver, begun, slug)
    async with inside(stack, "pg-a", scratch) as connection:
        await connection.execute(SERVES)
    armed.unlink(missing_ok=True)
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "tenant_mismatch")
    await assert_kept(driver, stack, slug, "pg-a", scratch)


async def assert_kept(driver: Driver, stack: Stack, slug: str, server: str, database: str) -> None:
    """The tenant works as before, and the database is there, named by the check; clean up."""
    await driver.settle()
    assert await cities(driver, slug) == {"Leeds", "York"}
    async with inside(stack, server, database) as connection:
        assert await connection.fetchval("SELECT to_regclass('public.since') IS NOT NULL")
    found = [(one["code"], one["message"]) for one in await driver.findings()]
    assert ("I-3", f"database {database} on {server} belongs to nobody in the catalog") in found
    async with inside(stack, server, "postgres") as connection:
        await connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        strays = [words.split()[1] for _, words in found if words.startswith("role ")]
        for role in {*strays, loader_of(database)}:
            await connection.execute(f'DROP ROLE IF EXISTS "{role}"')
    await driver.assert_clean()


async def test_a_copy_that_serves_is_kept(driver: Driver, stack: Stack, catalog: Any) -> None:
    slug = fresh_slug("served")
    await prepared(driver, [slug])
    place = ("move", "copy_data.rows", "before")
    armed = driver.arm(*place, slug, "exception")
    begun = await driver.call("POST", f"/v1/tenants/{slug}/moves", json={"server": "pg-b"})
    target = await catalog.fetchval(
        """SELECT d.name FROM databases d JOIN tenants t ON t.id = d.tenant_id
           WHERE t.slug = $1 AND d.purpose = 'moving'""",
        slug,
    )
    # Each attempt makes the database anew; between two of them it can be marked.
    while (begun := await driver.call("GET", f"/v1/operations/{begun['id']}"))["error"] is None:
        driver.arm(*place, slug, "exception")
        with suppress(asyncpg.PostgresError, OSError):
            async with inside(stack, "pg-b", target) as connection:
                await connection.execute(SERVES)
        await asyncio.sleep(0.05)
    armed.unlink(missing_ok=True)
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "tenant_mismatch")
    await assert_kept(driver, stack, slug, "pg-b", target)
