"""A catalog that has forgotten a switch: what serves a tenant is not thrown away with what it was.

The catalog is not made to forget; the scratch database of a restore is made to say that it serves,
which it only does after its switch.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from control_plane.adapters.scratch_database import loader_of
from deploy.local.stack import Stack
from tests.crash.test_backup_boundaries import cities, prepared
from tests.crash.test_late_comers import plant
from tests.driver import Driver, fresh_slug
from tests.integration.moves.faults import administrator

LOADING = ("restore", "load_dump", "before")
COPYING = ("move", "copy_data.rows", "before")
SECONDS = 60
# It waits to be tried again: not yet.
HOLD = """
UPDATE operations o SET due_at = now() + interval '1 hour'
 WHERE o.subject = $1 AND o.kind = $2 AND o.state = 'waiting' AND o.due_at > now()
   AND EXISTS (SELECT FROM steps s WHERE s.operation_id = o.id AND s.name = $3
                AND s.error_code = 'injected_failure')
RETURNING true
"""
SERVES = """
CREATE SCHEMA IF NOT EXISTS cp_meta;
CREATE TABLE IF NOT EXISTS cp_meta.identity (
    only_row boolean PRIMARY KEY DEFAULT true, tenant_id uuid, generation bigint, state text,
    system_identifier bigint);
INSERT INTO cp_meta.identity SELECT true, gen_random_uuid(), 2, 'primary', system_identifier
  FROM pg_control_system() ON CONFLICT DO NOTHING;
ALTER SCHEMA cp_meta OWNER TO cp_dbowner;
ALTER TABLE cp_meta.identity OWNER TO cp_dbowner;
CREATE TABLE IF NOT EXISTS public.since (n integer);
ALTER DATABASE "%s" OWNER TO cp_dbowner;
"""


@asynccontextmanager
async def between_attempts(
    driver: Driver, catalog: Any, slug: str, place: tuple[str, str, str]
) -> AsyncIterator[None]:
    """The operation fails at this place; for the block no other attempt begins, then one does."""
    kind, step, _ = place
    armed = driver.arm(*place, slug, "exception")
    async with asyncio.timeout(SECONDS):
        while not await catalog.fetchval(HOLD, slug, kind, step.split(".")[0]):
            driver.arm(*place, slug, "exception")
            await asyncio.sleep(0.02)
    armed.unlink(missing_ok=True)
    yield
    await catalog.execute("UPDATE operations SET due_at = now() WHERE subject = $1", slug)


async def test_a_scratch_database_that_serves_is_kept(
    driver: Driver, stack: Stack, catalog: Any
) -> None:
    slug = fresh_slug("served")
    backup = (await prepared(driver, [slug]))[slug]
    armed = driver.arm(*LOADING, slug, "exception")
    begun = await driver.begin(slug, "restore", backup_id=backup, target="in_place")
    async with between_attempts(driver, catalog, slug, LOADING):
        operation = await driver.call("GET", f"/v1/operations/{begun['id']}")
        (made,) = (one for one in operation["steps"] if one["name"] == "create_scratch")
        scratch = str(made["detail"]).split()[1]
        async with administrator(stack, "pg-a", scratch) as connection:
            await connection.execute(SERVES % scratch)
    assert not armed.exists()
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "tenant_mismatch")
    await assert_kept(driver, stack, slug, "pg-a", scratch)


async def assert_kept(driver: Driver, stack: Stack, slug: str, server: str, database: str) -> None:
    """The tenant works as before, and the database is there, named by the check; clean up."""
    await driver.settle()
    assert await cities(driver, slug) == {"Leeds", "York"}
    async with administrator(stack, server, database) as connection:
        assert await connection.fetchval("SELECT to_regclass('public.since') IS NOT NULL")
    await assert_named(driver, stack, server, database)


async def assert_named(driver: Driver, stack: Stack, server: str, database: str) -> None:
    """The check names the database that nobody has; clean up."""
    found = [(one["code"], one["message"]) for one in await driver.findings()]
    assert ("I-3", f"database {database} on {server} belongs to nobody in the catalog") in found
    async with administrator(stack, server) as connection:
        await connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        here = f" on {server} belongs to nobody in the catalog"
        strays = [w.split()[1] for _, w in found if w.startswith("role ") and w.endswith(here)]
        for role in {*strays, loader_of(database)}:
            await connection.execute(f'DROP ROLE IF EXISTS "{role}"')
    await driver.assert_clean()


async def test_a_copy_that_serves_is_kept(driver: Driver, stack: Stack, catalog: Any) -> None:
    slug = fresh_slug("served")
    await prepared(driver, [slug])
    armed = driver.arm(*COPYING, slug, "exception")
    begun = await driver.call("POST", f"/v1/tenants/{slug}/moves", json={"server": "pg-b"})
    async with between_attempts(driver, catalog, slug, COPYING):
        target = await catalog.fetchval(
            """SELECT d.name FROM databases d JOIN tenants t ON t.id = d.tenant_id
               WHERE t.slug = $1 AND d.purpose = 'moving'""",
            slug,
        )
        async with administrator(stack, "pg-b", target) as connection:
            await connection.execute(SERVES % target)
    assert not armed.exists()
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "tenant_mismatch")
    await assert_kept(driver, stack, slug, "pg-b", target)


@pytest.mark.parametrize("question", ["unclaimed", "unserved"])
async def test_who_goes_on_with_a_reclaim_asks_what_that_was_to_ask(
    driver: Driver, stack: Stack, catalog: Any, question: str
) -> None:
    while not (
        found := await catalog.fetchrow(
            """SELECT d.id, d.name, d.server_id FROM databases d JOIN servers s
               ON s.id = d.server_id WHERE d.purpose = 'pooled' AND s.name = 'pg-a' LIMIT 1"""
        )
    ):
        await asyncio.sleep(0.2)
    database = found["name"]
    async with administrator(stack, "pg-a", database) as connection:
        await connection.execute(
            "UPDATE cp_meta.identity SET tenant_id = gen_random_uuid(), state = 'primary'"
        )
    await plant(
        catalog,
        "reclaim",
        subject=database,
        database_id=found["id"],
        server_id=found["server_id"],
        input=json.dumps({question: True}),
        state="failed",
        error_code="server_refused",
        finished_at=await catalog.fetchval("SELECT now()"),
    )
    await catalog.execute("UPDATE databases SET purpose = 'condemned' WHERE id = $1", found["id"])
    repaired = await driver.call("POST", "/v1/check/repairs", timeout=60)
    assert database in {one["subject"] for one in repaired["repaired"]}
    await driver.settle()
    async with administrator(stack, "pg-a", database) as connection:
        assert await connection.fetchval("SELECT state FROM cp_meta.identity") == "primary"
    await assert_named(driver, stack, "pg-a", database)
