"""The catalog's primary dies under work, its standby takes over, and the old one comes back.

The stack restarts the old primary by itself, as whatever keeps processes running does: it takes
writes again, on its old timeline, and nobody may use it.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from control_plane.catalog import migrate
from deploy.local import standby
from deploy.local.stack import Stack
from tests.crash.test_data_plane import api_is_back, clients_of
from tests.driver import Driver
from tests.integration.catalog_life.lost import (
    OLD,
    Machine,
    driving,
    fresh_home,
    machine_of,
    running,
)

TENANTS = 12
# Who is connected to the old primary waits for half a minute before he looks for another one.
LONG_SECONDS = 300
ACKNOWLEDGED = httpx.codes.ACCEPTED


@pytest.fixture
def doubled() -> Iterator[Stack]:
    """A stack with two of everything, whose catalog has a standby."""
    with fresh_home() as home, running(home, OLD, doubled=True) as started:
        yield started


@asynccontextmanager
async def administrator(stack: Stack, port: int, database: str) -> AsyncIterator[Any]:
    facts = stack.facts()["catalog"]
    connection = await asyncpg.connect(
        host=facts["host"],
        port=port,
        user=facts["admin_user"],
        password=Path(facts["admin_password_file"]).read_text().strip(),
        database=database,
    )
    try:
        yield connection
    finally:
        await connection.close()


def ports_of(stack: Stack) -> tuple[int, int]:
    """Of the first primary and of its standby, as the DSN has them."""
    hosts = stack.facts()["environment"]["TENANTRY_CATALOG_DSN"].split("@")[1].partition("/")[0]
    first, second = (int(host.rpartition(":")[2]) for host in hosts.split(","))
    return first, second


async def follow_in_step(stack: Stack, port: int) -> None:
    """From now on the primary acknowledges nothing that its standby does not have."""
    async with administrator(stack, port, "postgres") as admin:
        names = f'FIRST 1 ("{standby.NAME}")'
        await admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await admin.execute("SELECT pg_reload_conf()")
        while await admin.fetchval("SELECT sync_state FROM pg_stat_replication") != "sync":
            await asyncio.sleep(0.1)


async def ask_until_acknowledged(driver: Driver, slug: str) -> None:
    """As a script does: the same key each time, until there is an answer."""
    headers = {"Idempotency-Key": f"failover-{slug}"}
    body = {"slug": slug, "name": slug}
    while True:
        try:
            answer = await driver.api.post("/v1/tenants", json=body, headers=headers)
        except httpx.HTTPError:
            answer = None
        if answer is not None and answer.status_code == ACKNOWLEDGED:
            return
        assert answer is None or answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
        await asyncio.sleep(0.2)


async def what_it_holds(stack: Stack, port: int) -> tuple[int, int, int]:
    async with administrator(stack, port, "tenantry") as admin:
        row = await admin.fetchrow(
            """SELECT (SELECT count(*) FROM operations), (SELECT max(seq) FROM audit_events),
                      (SELECT sum(epoch) FROM operations)"""
        )
    return tuple(row)


async def test_a_standby_takes_over_and_the_old_primary_is_not_written(doubled: Stack) -> None:
    first, second = ports_of(doubled)
    async with driving(doubled) as driver:
        await follow_in_step(doubled, first)
        await driver.create("before")
        async with await clients_of(driver, "before") as clients:
            slugs = [f"during-{number}" for number in range(TENANTS)]
            asking = [asyncio.create_task(ask_until_acknowledged(driver, slug)) for slug in slugs]
            while not any(task.done() for task in asking):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(doubled.kill, "catalog", signal.SIGKILL)
            async with administrator(doubled, second, "postgres") as admin:
                assert await admin.fetchval("SELECT pg_promote()")
            await asyncio.to_thread(doubled.wait_running, "catalog")
            await asyncio.gather(*asking)
            await api_is_back(driver)
            await driver.settle()
            await clients.until_all_answer()
            assert clients.errors == 0
        left = await what_it_holds(doubled, first)
        await nothing_is_lost_or_doubled(driver, slugs)
        await driver.create("after")
        await driver.assert_clean()
        assert await what_it_holds(doubled, first) == left
        assert (await what_it_holds(doubled, second))[0] > left[0]
        await nobody_works_from(doubled, first)


async def test_promoted_while_the_old_primary_lives(doubled: Stack) -> None:
    """Everybody is connected to it still. What it cannot replicate it does not acknowledge."""
    first, second = ports_of(doubled)
    async with driving(doubled) as driver:
        await follow_in_step(doubled, first)
        await driver.create("before")
        async with administrator(doubled, second, "postgres") as admin:
            assert await admin.fetchval("SELECT pg_promote()")
        slugs = [f"torn-{number}" for number in range(3)]
        await asyncio.gather(*(ask_until_acknowledged(driver, slug) for slug in slugs))
        await driver.settle(LONG_SECONDS)
        await nothing_is_lost_or_doubled(driver, ["before", *slugs])
        await driver.assert_clean()
        await nobody_works_from(doubled, first)


async def nobody_works_from(stack: Stack, port: int) -> None:
    """Not even who sees no other server; and the catalog's migrations go past it."""
    async with administrator(stack, port, "tenantry") as admin:
        assert not await admin.fetchval("SELECT pg_is_in_recovery()")
        assert not await admin.fetchval("SELECT catalog_is_accepted()")
    machine = machine_of(stack)
    alone = {"TENANTRY_CATALOG_DSN": f"postgresql://tenantry@127.0.0.1:{port}/tenantry"}
    refused = Machine({**machine.environment, **alone}).run("admin", "catalog", "backup")
    assert "a primary that was replaced" in refused.stderr
    left = await migrated_at(stack, port)
    async with administrator(stack, port, "tenantry") as admin:
        await admin.execute("SET synchronous_commit = local")
        await admin.execute("UPDATE alembic_version SET version_num = 'elsewhere'")
    migrating = [sys.executable, "-m", "control_plane.catalog.migrate"]
    environment = {"PATH": "/usr/bin:/bin", **machine.environment}
    await asyncio.to_thread(subprocess.run, migrating, check=True, env=environment)
    assert (await migrated_at(stack, port), left) == ("elsewhere", migrate.head())


async def migrated_at(stack: Stack, port: int) -> str:
    async with administrator(stack, port, "tenantry") as admin:
        return str(await admin.fetchval("SELECT version_num FROM alembic_version"))


async def nothing_is_lost_or_doubled(driver: Driver, slugs: list[str]) -> None:
    """Each tenant that was asked for is there once, made by one operation, each step done once."""
    for slug in slugs:
        assert (await driver.call("GET", f"/v1/tenants/{slug}"))["state"] == "active"
        (made,) = await driver.operations(tenant=slug)
        assert (made["kind"], made["state"]) == ("provision", "succeeded")
        assert {step["state"] for step in made["steps"]} <= {"done", "skipped"}
