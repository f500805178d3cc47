"""What goes wrong during a move: it ends with one writable primary and nothing left over."""

import asyncio
import os
import signal
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.moves.test_move import begin, look, make  # noqa: F401 - a fixture
from tests.integration.moves.writers import writing

SECONDS = 240


def pids(stack: Stack, *names: str) -> list[int]:
    return [one["pid"] for one in stack.facts()["processes"] if one["name"] in names]


async def disarmed(path: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while path.exists():
            await asyncio.sleep(0.01)


async def step_of(driver: Driver, operation: dict[str, Any], name: str) -> dict[str, Any]:
    found = await driver.call("GET", f"/v1/operations/{operation['id']}")
    (step,) = (step for step in found["steps"] if step["name"] == name)
    return dict(step)


async def holding(door: dict[str, Any], statement: str, seconds: float) -> None:
    """An application's transaction that is long."""
    connection = await asyncpg.connect(**door, timeout=60)
    async with connection.transaction():
        await connection.execute(statement)
        await asyncio.sleep(seconds)
    await connection.close()


async def attempts(driver: Driver, slug: str) -> int:
    found = await driver.call("GET", f"/v1/tenants/{slug}/moves")
    return int(found["items"][0]["attempts"])


async def test_two_moves_at_once(driver: Driver, look: Any) -> None:  # noqa: F811
    slug = await make(driver, look, "two")
    answers = await asyncio.gather(
        *(driver.api.post(f"/v1/tenants/{slug}/moves", json={"server": "pg-b"}) for _ in range(6))
    )
    begun = [answer.json() for answer in answers if answer.status_code == 202]
    assert len(begun) == 1
    assert {answer.status_code for answer in answers} == {202, 409}
    refused = await driver.api.post(f"/v1/tenants/{slug}/suspensions")
    assert refused.status_code == 409
    await driver.finish(begun[0], SECONDS)
    await driver.assert_clean()


async def test_a_long_transaction_is_waited_for(driver: Driver, look: Any) -> None:  # noqa: F811
    slug = await make(driver, look, "long")
    armed = driver.arm("move", "switch_route", "before", slug, "exception")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        await disarmed(armed)
        door = fleet.writers[0].door
        insert = "INSERT INTO public.acked VALUES (-1, 0, 0)"
        await holding(door, insert, 4)
        await driver.finish(operation, SECONDS)
    assert [writer.errors for writer in fleet.writers] == [[] for _ in fleet.writers]
    async with look(slug) as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.acked WHERE id = -1") == 1
        await connection.execute("DELETE FROM public.acked WHERE id = -1")
        await fleet.check(connection)
    await driver.assert_clean()


async def test_past_the_budget_everything_resumes_on_the_source(
    driver: Driver,
    look: Any,  # noqa: F811
) -> None:
    """Transactions of 2.5 s that are young when the switch looks, and last when it pauses."""
    slug = await make(driver, look, "budget")
    armed = driver.arm("move", "switch_route", "before", slug, "exception")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug, pause_budget_ms=700)
        await disarmed(armed)
        async with asyncio.timeout(SECONDS):
            while await attempts(driver, slug) == 0:
                await holding(fleet.writers[0].door, "SELECT 1", 2.5)
        await driver.finish(operation, SECONDS)
    assert [writer.errors for writer in fleet.writers] == [[] for _ in fleet.writers]
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()


@pytest.mark.parametrize("place", ["fence.after", "commit.before", "commit.after"])
async def test_poolers_killed_in_the_window(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
    place: str,
) -> None:
    slug = await make(driver, look, f"pool-{place[:5]}")
    armed = driver.arm("move", "switch_route", place, slug, "exception")
    async with writing(driver, slug, sessions=1) as fleet:
        operation = await begin(driver, slug)
        await disarmed(armed)
        for pid in pids(stack, "pgbouncer-p1", "pgbouncer-p2"):
            os.kill(pid, signal.SIGKILL)
        await driver.finish(operation, SECONDS)
        await asyncio.sleep(1)
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()


@pytest.mark.parametrize("step", ["copy_data", "wait_caught_up", "switch_route"])
async def test_the_new_server_crashes(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
    step: str,
) -> None:
    slug = await make(driver, look, f"crash-{step[:4]}")
    where = "fence.after" if step == "switch_route" else "before"
    armed = driver.arm("move", step, where, slug, "exception")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        await disarmed(armed)
        for pid in pids(stack, "pg-b"):
            os.kill(pid, signal.SIGKILL)
        ended = await driver.over(operation, SECONDS)
        await driver.settle()
    assert ended["state"] == "succeeded", ended
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()


async def test_a_lost_slot_ends_the_move(driver: Driver, look: Any) -> None:  # noqa: F811
    slug = await make(driver, look, "slot")
    armed = driver.arm("move", "wait_caught_up", "before", slug, "exception")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        await disarmed(armed)
        async with look(slug) as connection:
            await connection.execute(
                """SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                    WHERE database = current_database() AND active_pid IS NOT NULL"""
            )
            await connection.execute(
                """DO $$ BEGIN LOOP BEGIN
                       PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                         WHERE database = current_database();
                       RETURN;
                   EXCEPTION WHEN object_in_use THEN
                       PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
                         WHERE database = current_database();
                   END; END LOOP; END $$"""
            )
        ended = await driver.over(operation, SECONDS)
        await driver.settle()
    assert ended["state"] == "failed", ended
    assert ended["error"]["code"] == "replication_broken"
    assert [writer.errors for writer in fleet.writers] == [[] for _ in fleet.writers]
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-a"
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()


async def test_a_difference_refuses_the_switch(driver: Driver, look: Any) -> None:  # noqa: F811
    """A row that somebody wrote into the new database is found before anybody is led there."""
    slug = await make(driver, look, "differs")
    armed = driver.arm("move", "compare_data", "before", slug, "exception")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        await disarmed(armed)
        async with look(slug, "moving") as connection:
            await connection.execute("INSERT INTO public.acked VALUES (-7, 0, 0)")
        ended = await driver.over(operation, SECONDS)
        await driver.settle()
    assert ended["error"]["code"] == "content_mismatch", ended
    assert "public.acked" in ended["error"]["message"]
    assert [writer.errors for writer in fleet.writers] == [[] for _ in fleet.writers]
    await driver.assert_clean()


async def test_offline_when_it_cannot_be_replicated(driver: Driver, look: Any) -> None:  # noqa: F811
    slug = await make(driver, look, "offline")
    async with look(slug) as connection:
        owner = await connection.fetchval(
            "SELECT tableowner FROM pg_tables WHERE tablename = 'acked'"
        )
        await connection.execute(
            f"""SET ROLE {owner}; CREATE UNLOGGED TABLE public.fleeting (id int PRIMARY KEY);
                INSERT INTO public.fleeting SELECT generate_series(1, 50); RESET ROLE;
                SELECT lo_from_bytea(424242, '\\x00ff10');
                ALTER LARGE OBJECT 424242 OWNER TO {owner};
                GRANT SELECT ON LARGE OBJECT 424242 TO {owner.replace("_owner", "_bak")}"""
        )
    refused = await driver.over(await begin(driver, slug), SECONDS)
    assert refused["state"] == "failed"
    assert "public.fleeting" in refused["error"]["message"]
    assert "--offline" in refused["error"]["message"]
    await driver.settle()
    await driver.finish(await begin(driver, slug, offline=True), SECONDS)
    async with look(slug) as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.fleeting") == 50
        assert await connection.fetchval("SELECT lo_get(424242)") == b"\x00\xff\x10"
        await connection.execute("DROP TABLE public.fleeting")
        await connection.execute("SELECT lo_unlink(424242)")
    reverse = await driver.api.post(f"/v1/tenants/{slug}/moves/reverse")
    assert reverse.status_code == 409
    await driver.finish(
        await driver.call("POST", f"/v1/tenants/{slug}/moves/finish", json={"without_backup": True})
    )
    await driver.assert_clean()
