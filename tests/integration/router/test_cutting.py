"""A withdrawn route cuts everybody who is inside, whatever they are doing, and only them."""

import asyncio
import time

import psycopg
import pytest

from tests.integration.router.conftest import traffic
from tests.integration.router.world import Client, World

# The alias is gone, or the login before it was even asked.
REFUSED = "no such database|SASL authentication failed"


async def alive(client: Client) -> bool:
    try:
        await client.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def test_a_withdrawn_route_cuts_every_kind_of_client(world: World) -> None:
    clinic = await world.published_clinic("cut-clinic")
    other = await world.published_clinic("kept-clinic")
    inside: dict[str, Client] = {}
    for pooler in world.poolers:
        for session in (False, True):
            where = f"{pooler.settings.name} session={session}"
            idle, busy, working_one = [
                await world.connect(clinic, pooler, session=session) for _ in range(3)
            ]
            await idle.execute("SELECT 1")
            await busy.execute("BEGIN")
            await busy.execute("SELECT 1")
            inside |= {f"{where} idle": idle, f"{where} in transaction": busy}
            inside[f"{where} working"] = working_one
    working = [
        asyncio.create_task(client.execute("SELECT pg_sleep(30)"))
        for what, client in inside.items()
        if what.endswith("working")
    ]
    await asyncio.sleep(0.1)
    async with traffic(world, other) as seen:
        started = time.monotonic()
        await world.serving(clinic, await world.touch(clinic, "withdrawn"))
        ended = await asyncio.wait_for(asyncio.gather(*working, return_exceptions=True), 2)
        assert all(isinstance(end, psycopg.Error) for end in ended), ended
        still = [what for what, client in inside.items() if await alive(client)]
        took = time.monotonic() - started
        assert still == []
        for pooler in world.poolers:
            for session in (False, True):
                with pytest.raises(psycopg.OperationalError, match=REFUSED):
                    await world.connect(clinic, pooler, session=session)
        await asyncio.sleep(0.1)
    print(f"commit of the withdrawal to every client cut: {took * 1000:.0f} ms")
    assert took < 2
    assert seen.errors == []
    for client in inside.values():
        await client.close()


async def test_a_withdrawn_tenant_comes_back(world: World) -> None:
    clinic = await world.published_clinic("back-clinic")
    await world.serving(clinic, await world.touch(clinic, "withdrawn"))
    for pooler in world.poolers:
        text = pooler.file("databases.ini").read_text() + pooler.file("users.txt").read_text()
        assert clinic.slug not in text
        assert clinic.roles.login_a not in text
    await world.serving(clinic, await world.touch(clinic, "published"))
    for pooler in world.poolers:
        async with await world.connect(clinic, pooler) as client:
            assert await alive(client)
