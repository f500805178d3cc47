"""Who acts, through a pool that hands one server session to many clients (security.md 2.2)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from tests.integration.router.world import Client, Clinic, World

ACTOR = "SELECT pg_backend_pid(), coalesce(current_setting('app.user_id', true), '')"


@asynccontextmanager
async def client_of(world: World, clinic: Clinic) -> AsyncIterator[Client]:
    async with await world.connect(clinic, world.poolers[0]) as client:
        await client.set_autocommit(True)
        yield client


async def look(client: psycopg.AsyncConnection[tuple[Any, ...]]) -> tuple[Any, ...]:
    row = await (await client.execute(ACTOR)).fetchone()
    assert row is not None
    return row


async def test_a_name_set_for_the_transaction_reaches_no_other_client(world: World) -> None:
    clinic = await world.published_clinic("acting-clinic")
    async with client_of(world, clinic) as first, client_of(world, clinic) as second:
        async with first.transaction():
            await first.execute("SELECT set_config('app.user_id', 'alice', true)")
            backend, actor = await look(first)
            assert actor == "alice"
        assert await look(second) == (backend, "")
        assert await look(first) == (backend, "")


async def test_a_plain_set_leaks_which_is_why_nobody_may_use_it(world: World) -> None:
    """What the application kit exists to prevent: the audit log would blame the wrong person."""
    clinic = await world.published_clinic("leaking-clinic")
    async with client_of(world, clinic) as first, client_of(world, clinic) as second:
        await first.execute("SET app.user_id = 'alice'")
        backend, actor = await look(second)
        assert (backend, actor) == ((await look(first))[0], "alice")
