"""Two APIs, four workers on two queues, two beats: each dies once, under load and in mid-work.

Nothing that was asked for is lost or done twice, no client of a clinic sees an error, and what two
beats ask for is done once.
"""

import asyncio
import datetime as dt
import itertools
import signal
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from deploy.local.options import DEFAULT_SERVERS
from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.catalog_life.lost import driving, fresh_home, running
from tests.integration.test_restores import cities, pgbench, write

VICTIMS = (
    *("api", "api-2", "worker-control", "worker-control-2"),
    *("worker-transfer", "worker-transfer-2", "beat", "beat-2"),
)
SECONDS = 240
# Who moves while this worker dies.
MOVERS = {"worker-transfer": "mover", "worker-transfer-2": "other-mover"}
SOON = dt.timedelta(minutes=2)


class Script:
    """Asks one API, and the other one when that does not answer; the same key each time."""

    def __init__(self, stack: Stack, driver: Driver) -> None:
        self._driver = driver
        self._apis = itertools.cycle(stack.facts()["api_urls"])
        self._keys = itertools.count()

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


async def test_each_of_two_dies_under_load() -> None:
    with fresh_home() as home, running(home, DEFAULT_SERVERS, doubled=True) as stack:
        async with driving(stack) as driver:
            script = Script(stack, driver)
            for slug in (*MOVERS.values(), "steady", "restored"):
                await driver.create(slug, server="pg-a")
            await write(driver, "restored", "Leeds", "York")
            await driver.back_up("restored")
            soon = dt.datetime.now(dt.UTC) + SOON
            hourly = {"cron": f"{soon.minute} * * * *", "rpo_minutes": 600, "jitter_minutes": 0}
            await driver.call("PUT", "/v1/tenants/steady/backup-schedule", json=hourly)
            async with pgbench(stack, driver, *MOVERS.values(), "steady"):
                for number, victim in enumerate(VICTIMS):
                    await one_round(stack, script, number, victim)
            async with asyncio.timeout(SECONDS):
                while not (await driver.call("GET", "/v1/tenants/steady/backups"))["items"]:
                    await asyncio.sleep(0.5)
            await driver.settle()
            await nothing_is_lost_or_doubled(stack, driver)


async def one_round(stack: Stack, script: Script, number: int, victim: str) -> None:
    """Work of every kind is begun, somebody dies in its midst, and all of it succeeds."""
    wanted = [
        ("POST", "/v1/tenants", {"slug": f"new-{number}", "name": victim}),
        ("POST", "/v1/tenants/restored/restores", {"target": "in_place"}),
    ]
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


async def nothing_is_lost_or_doubled(stack: Stack, driver: Driver) -> None:
    for number in range(len(VICTIMS)):
        (made,) = await driver.operations(tenant=f"new-{number}")
        assert made["state"] == "succeeded"
    assert await driver.operations(state="failed") == []
    assert await cities(driver, "restored") == {"Leeds", "York"}
    facts = stack.facts()["catalog"]
    catalog = await asyncpg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["user"],
        password=Path(facts["password_file"]).read_text().strip(),
        database=facts["database"],
    )
    slots = await catalog.fetch(
        "SELECT slot_at, count(*) AS made FROM backups WHERE cause = 'schedule' GROUP BY 1"
    )
    assert slots
    assert {row["made"] for row in slots} == {1}
    assert await catalog.fetchval("SELECT count(*) FROM catalog_backups") == 1
    await catalog.close()
    await driver.assert_clean()
