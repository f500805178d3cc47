"""A way back whose sender is at another address by now, as after a failover or a new container."""

import asyncio
from typing import Any

from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.moves.faults import SECONDS, administrator, prove
from tests.integration.moves.test_move import begin, look, make  # noqa: F401 - a fixture
from tests.integration.moves.writers import writing

HERE, NOWHERE = "hostaddr=127.0.0.1", "hostaddr=127.0.0.9"


async def is_asked(stack: Stack, name: str) -> bool:
    """Whether anybody streams from this slot of the new server."""
    async with administrator(stack, "pg-b") as admin:
        return bool(
            await admin.fetchval(
                "SELECT active FROM pg_replication_slots WHERE slot_name = $1", name
            )
        )


async def lead_astray(stack: Stack, look: Any, slug: str) -> str:  # noqa: F811
    """The old database has an address of the new server at which nobody answers; its slot."""
    async with look(slug, "moved_from") as old:
        (row,) = await old.fetch(
            """SELECT subname, subconninfo FROM pg_subscription s
                 JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()"""
        )
        assert HERE in row["subconninfo"]
        astray = row["subconninfo"].replace(HERE, NOWHERE).replace("'", "''")
        await old.execute(f"ALTER SUBSCRIPTION {row['subname']} CONNECTION '{astray}'")
    async with asyncio.timeout(SECONDS):
        while await is_asked(stack, row["subname"]):
            await asyncio.sleep(0.05)
    return str(row["subname"])


async def test_a_way_back_finds_its_sender_at_another_address(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "readdressed")
    async with writing(driver, slug) as fleet:
        await driver.finish(await begin(driver, slug), SECONDS)
        slot = await lead_astray(stack, look, slug)
        async with asyncio.timeout(SECONDS):
            while not await is_asked(stack, slot):
                await asyncio.sleep(0.2)
        # The reversal, too, sees to it when it comes first.
        await lead_astray(stack, look, slug)
        back = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
        await driver.finish(back, SECONDS)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")
