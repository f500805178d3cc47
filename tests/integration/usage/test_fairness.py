"""Our own work is no noisy neighbour: upkeep of a server has two places, however many wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

TENANTS = 5
PLACES = 2
PATIENCE_SECONDS = 120.0
_WORKING = """
SELECT count(DISTINCT datname) FROM pg_stat_activity
 WHERE application_name = 'cp:upkeep' AND datname = ANY ($1)
"""
_A_VIEW = "SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews ORDER BY 1 LIMIT 1"


async def administrator(stack: Stack, database: str) -> Any:
    (server,) = (one for one in stack.facts()["servers"] if one["name"] == "pg-a")
    return await asyncpg.connect(
        host=server["host"],
        port=server["port"],
        user=server["admin_user"],
        password=Path(server["admin_password_file"]).read_text().strip(),
        database=database,
    )


@asynccontextmanager
async def reports_in_use(stack: Stack, databases: Sequence[str]) -> AsyncIterator[None]:
    """Somebody holds a report of each, so that whoever refreshes it waits its two seconds."""
    async with AsyncExitStack() as held:
        for database in databases:
            connection = await administrator(stack, database)
            held.push_async_callback(connection.close)
            view = await connection.fetchval(_A_VIEW)
            await held.enter_async_context(connection.transaction())
            await connection.execute(f"REFRESH MATERIALIZED VIEW {view}")  # locked until the end
        yield


async def test_upkeep_has_two_places_on_a_server(
    stack: Stack, driver: Driver, catalog: Any
) -> None:
    slugs = [fresh_slug("tended") for _ in range(TENANTS)]
    await asyncio.gather(*(driver.create(slug, server="pg-a") for slug in slugs))
    names = await databases_of(catalog, slugs)
    onlooker = await administrator(stack, "postgres")
    most = 0
    async with reports_in_use(stack, names):
        asked = await catalog.fetchval("SELECT clock_timestamp()")
        await catalog.execute(
            """UPDATE databases SET upkeep_due_at = clock_timestamp() - interval '1 day',
                      upkeep_done_at = clock_timestamp() - interval '1 day'
               WHERE name = ANY ($1)""",
            names,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while await not_tended(catalog, names, asked):
            assert time.monotonic() < deadline
            most = max(most, await onlooker.fetchval(_WORKING, names))
            await asyncio.sleep(0.02)
    await onlooker.close()
    assert most == PLACES
    await driver.assert_clean()


async def databases_of(catalog: Any, slugs: Sequence[str]) -> list[str]:
    rows = await catalog.fetch(
        """SELECT d.name FROM databases d JOIN tenants t ON t.id = d.tenant_id
           WHERE t.slug = ANY ($1) AND d.purpose = 'primary'""",
        slugs,
    )
    return [row["name"] for row in rows]


async def not_tended(catalog: Any, names: Sequence[str], since: Any) -> int:
    return int(
        await catalog.fetchval(
            "SELECT count(*) FROM databases WHERE name = ANY ($1) AND upkeep_done_at < $2",
            names,
            since,
        )
    )
