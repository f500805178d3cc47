"""Two APIs, four workers on two queues, two beats, two poolers: each dies once, in mid-work.

Nothing that was asked for is lost or done twice, and what two beats ask for is done once. A client
of a clinic sees an error only when the pooler dies that it is connected to, and loses no row.
"""

import asyncio
import datetime as dt
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from deploy.local.options import DEFAULT_SERVERS
from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.catalog_life.lost import driving, fresh_home, running
from tests.integration.moves.test_move import inside
from tests.integration.moves.writers import Fleet, Writer, prepare, writing
from tests.integration.test_restores import cities, pgbench, write

VICTIMS = (
    *("api", "api-2", "worker-control", "worker-control-2"),
    *("worker-transfer", "worker-transfer-2", "beat", "beat-2"),
)
POOLERS = ("pooler-p1", "agent-p1", "pooler-p2", "agent-p2")
SECONDS = 240
# Who moves while this one dies.
MOVERS = {
    "worker-transfer": "mover",
    "worker-transfer-2": "other-mover",
    "pooler-p1": "written-mover",
    "agent-p2": "other-written-mover",
}
SOON = dt.timedelta(minutes=2)


@pytest.fixture(scope="module")
def two() -> Iterator[Stack]:
    """A stack with two of everything, to itself."""
    with fresh_home() as home, running(home, DEFAULT_SERVERS, doubled=True) as started:
        yield started


class Script:
    """Asks one API, and the other one when that does not answer; the same key each time."""

    _keys = itertools.count()

    def __init__(self, stack: Stack, driver: Driver) -> None:
        self._driver = driver
        self._apis = itertools.cycle(stack.facts()["api_urls"])

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Idempotency-Key": f"script-{next(self._keys)}"}
        while True:
            url = next(self._apis) + path
            try:
                answer = await self._driver.api.request(method, url, json=body, headers=headers)
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
                continue
            assert answer.is_success, answer.text
            return answer.json()

    async def finish(self, operation: dict[str, Any]) -> None:
        """Until the operation has succeeded, whoever can be asked."""
        async with asyncio.timeout(SECONDS):
            while operation["state"] not in ("succeeded", "failed", "cancelled"):
                await asyncio.sleep(0.2)
                operation = await self.ask("GET", f"/v1/operations/{operation['id']}")
        assert operation["state"] == "succeeded", (operation["kind"], operation["error"])


async def test_each_of_two_dies_under_load(two: Stack) -> None:
    async with driving(two) as driver:
        script = Script(two, driver)
        movers = [MOVERS[victim] for victim in VICTIMS if victim in MOVERS]
        for slug in (*movers, "steady", "restored"):
            await driver.create(slug, server="pg-a")
        await write(driver, "restored", "Leeds", "York")
        await driver.back_up("restored")
        soon = dt.datetime.now(dt.UTC) + SOON
        hourly = {"cron": f"{soon.minute} * * * *", "rpo_minutes": 600, "jitter_minutes": 0}
        await driver.call("PUT", "/v1/tenants/steady/backup-schedule", json=hourly)
        async with pgbench(two, driver, *movers, "steady"):
            for victim in VICTIMS:
                await one_round(two, script, victim)
        async with asyncio.timeout(SECONDS):
            while not (await driver.call("GET", "/v1/tenants/steady/backups"))["items"]:
                await asyncio.sleep(0.5)
        await nothing_is_lost_or_doubled(driver, VICTIMS)
        assert await cities(driver, "restored") == {"Leeds", "York"}
        await two_beats_asked_for_one(two)


async def test_a_beat_that_slept_over_a_slot_wakes_up_harmless(two: Stack) -> None:
    async with driving(two) as driver:
        await driver.create("slept-over", server="pg-a")
        backups = "/v1/tenants/slept-over/backups"
        pid = await asyncio.to_thread(two.kill, "beat", signal.SIGSTOP)
        try:
            soon = dt.datetime.now(dt.UTC) + SOON / 2
            hourly = {"cron": f"{soon.minute} * * * *", "rpo_minutes": 600, "jitter_minutes": 0}
            await driver.call("PUT", "/v1/tenants/slept-over/backup-schedule", json=hourly)
            async with asyncio.timeout(SECONDS):
                while not (await driver.call("GET", backups))["items"]:
                    await asyncio.sleep(0.5)
        finally:
            assert await asyncio.to_thread(two.kill, "beat", signal.SIGCONT) == pid
        asked = two.log("beat").read_text().count("plan_backups")
        async with asyncio.timeout(SECONDS):
            while two.log("beat").read_text().count("plan_backups") < asked + 2:
                await asyncio.sleep(0.5)
        await driver.call("DELETE", "/v1/tenants/slept-over/backup-schedule")
        await driver.settle()
        assert await driver.operations(state="failed") == []
        await driver.assert_clean()
        await each_slot_was_kept_once(two)


async def test_each_pooler_and_each_agent_dies_under_load(two: Stack) -> None:
    """Who is connected to a pooler that dies connects anew, to it or to the other one."""
    async with driving(two) as driver, AsyncExitStack() as load:
        script = Script(two, driver)
        slugs = ["written", *(MOVERS[victim] for victim in POOLERS if victim in MOVERS)]
        fleets = [await load.enter_async_context(written(two, driver, slug)) for slug in slugs]
        steady = fleets[0]
        roaming = await load.enter_async_context(at_every_address(steady))
        for victim in POOLERS:
            before = {writer.number: len(writer.errors) for writer in steady.writers}
            await one_round(two, script, victim, restored=None)
            await until_all_are_acknowledged(fleets)
            cut = [one for one in steady.writers if len(one.errors) > before[one.number]]
            assert {place_of(two, one) for one in cut} - {"anywhere"} == {victim} & {*POOLERS[::2]}
            assert len(roaming.errors) - before[roaming.number] <= 1, roaming.errors
        for fleet in fleets:
            async with inside(two, driver, fleet.slug) as database:
                await fleet.check(database)
        await nothing_is_lost_or_doubled(driver, POOLERS)


@asynccontextmanager
async def written(stack: Stack, driver: Driver, slug: str) -> AsyncIterator[Fleet]:
    """A tenant whose applications write all the time, through each pooler."""
    tenant = await driver.create(slug, server="pg-a")
    async with inside(stack, driver, slug) as database:
        await prepare(database, tenant["id"])
    async with writing(driver, slug, pause=0.02) as fleet:
        yield fleet


@asynccontextmanager
async def at_every_address(fleet: Fleet) -> AsyncIterator[Writer]:
    """One writer more, who was given the addresses of all poolers, as libpq takes them."""
    hosts = {(door["host"], door["port"]): None for door in fleet.doors}
    door = fleet.pooled[0].door | {
        "host": [host for host, _ in hosts],
        "port": [port for _, port in hosts],
    }
    writer, stop = Writer(door, session=False), asyncio.Event()
    fleet.writers.append(writer)
    task = asyncio.create_task(writer.run(stop, 0.02))
    try:
        yield writer
    finally:
        stop.set()
        await task


def place_of(stack: Stack, writer: Writer) -> str:
    """The pooler at whose address a writer is."""
    if isinstance(writer.door["port"], list):
        return "anywhere"
    ports = {each["port"]: each["name"] for each in stack.facts()["poolers"]}
    return f"pooler-{ports[writer.door['port']]}"


async def until_all_are_acknowledged(fleets: list[Fleet]) -> None:
    """Every writer has written once more."""
    writers = [writer for fleet in fleets for writer in fleet.writers]
    before = [len(writer.acked) for writer in writers]
    async with asyncio.timeout(SECONDS):
        while any(len(w.acked) <= b for w, b in zip(writers, before, strict=True)):
            await asyncio.sleep(0.05)


async def one_round(
    stack: Stack, script: Script, victim: str, restored: str | None = "restored"
) -> None:
    """Work of every kind is begun, somebody dies in its midst, and all of it succeeds."""
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/tenants", {"slug": f"new-{victim}", "name": victim})
    ]
    if restored:
        wanted.append(("POST", f"/v1/tenants/{restored}/restores", {"target": "in_place"}))
    if mover := MOVERS.get(victim):
        wanted.append(("POST", f"/v1/tenants/{mover}/moves", {"server": "pg-b"}))
    asking = [asyncio.create_task(script.ask(*each)) for each in wanted]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    pid = await asyncio.to_thread(stack.kill, victim, signal.SIGKILL)
    for operation in await asyncio.gather(*asking):
        await script.finish(operation)
    if mover:
        finish = f"/v1/tenants/{mover}/moves/finish"
        await script.finish(await script.ask("POST", finish, {"without_backup": True}))
    await asyncio.to_thread(stack.wait_running, victim, other_than=pid)


async def nothing_is_lost_or_doubled(driver: Driver, victims: tuple[str, ...]) -> None:
    """Each tenant that was asked for was made by one operation, and nothing has failed."""
    await driver.settle()
    for victim in victims:
        (made,) = await driver.operations(tenant=f"new-{victim}")
        assert made["state"] == "succeeded"
    assert await driver.operations(state="failed") == []
    await driver.assert_clean()


async def two_beats_asked_for_one(stack: Stack) -> None:
    """Of each slot of a schedule, and of the catalog itself, there is one backup."""
    await each_slot_was_kept_once(stack)
    async with to_the_catalog(stack) as catalog:
        assert await catalog.fetchval("SELECT count(*) FROM catalog_backups") == 1


async def each_slot_was_kept_once(stack: Stack) -> None:
    async with to_the_catalog(stack) as catalog:
        slots = await catalog.fetch(
            """SELECT tenant_id, slot_at, count(*) AS made FROM backups
               WHERE cause = 'schedule' GROUP BY 1, 2"""
        )
    assert slots
    assert {row["made"] for row in slots} == {1}


@asynccontextmanager
async def to_the_catalog(stack: Stack) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    facts = stack.facts()["catalog"]
    catalog = await asyncpg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["user"],
        password=Path(facts["password_file"]).read_text().strip(),
        database=facts["database"],
    )
    try:
        yield catalog
    finally:
        await catalog.close()
