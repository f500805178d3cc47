"""Clients that keep working while parts of the system die around them."""

import asyncio
import signal
import time
from collections import Counter
from typing import Any, Self

import asyncpg

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

# asyncpg trips over itself (InternalClientError) when a server goes away between two messages.
CUT = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Client:
    """One application connection that asks again and again, and counts what comes back."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.answers = 0
        self.errors: Counter[str] = Counter()
        self.last_answer = 0.0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        connection: Any = None
        while not self._stop.is_set():
            try:
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(
                        self.dsn, statement_cache_size=0, timeout=5, command_timeout=5
                    )
                await connection.fetchval("SELECT count(*) FROM patients.patient")
                self.answers += 1
                self.last_answer = time.monotonic()
            except CUT as error:
                self.errors[type(error).__name__] += 1
                if connection is not None:
                    connection.terminate()
                    connection = None
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.005)
        if connection is not None:
            connection.terminate()

    def stop(self) -> None:
        self._stop.set()


class Clients:
    """One client per pooler and endpoint of a tenant."""

    def __init__(self, revealed: list[dict[str, Any]]) -> None:
        self.all = [
            Client(each["dsn"].replace(f":{each['port']}/", f":{pooler['port']}/"))
            for each in revealed
            for pooler in each["poolers"]
        ]

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(client.run()) for client in self.all]
        await self.until_all_answer()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await asyncio.gather(*self._tasks)

    def stop(self) -> None:
        for client in self.all:
            client.stop()

    async def until_all_answer(self, seconds: float = 20) -> None:
        before = [client.answers for client in self.all]
        deadline = time.monotonic() + seconds
        while any(c.answers <= b for c, b in zip(self.all, before, strict=True)):
            assert time.monotonic() < deadline, [dict(c.errors) for c in self.all]
            await asyncio.sleep(0.02)

    @property
    def errors(self) -> int:
        return sum(sum(client.errors.values()) for client in self.all)


async def clients_of(driver: Driver, slug: str) -> Clients:
    return Clients([await driver.dsn(slug, pool) for pool in ("transaction", "session")])


async def test_the_control_plane_dies_and_no_client_notices(driver: Driver, stack: Stack) -> None:
    """F7 for applications: catalog, agents, workers, API, broker gone; 0 errors."""
    slug = fresh_slug("unbothered")
    await driver.create(slug)
    parts = ["catalog", "agent-p1", "agent-p2", "worker-control", "worker-transfer", "api", "redis"]
    async with await clients_of(driver, slug) as clients:
        pids = {name: await asyncio.to_thread(stack.kill, name, signal.SIGKILL) for name in parts}
        await asyncio.sleep(2)
        for name, pid in pids.items():
            await asyncio.to_thread(stack.wait_running, name, other_than=pid)
        await clients.until_all_answer()
        assert clients.errors == 0
    await api_is_back(driver)
    await driver.create(fresh_slug("after-the-storm"))
    await driver.assert_clean()


async def api_is_back(driver: Driver) -> None:
    for _ in range(300):
        try:
            if (await driver.api.get("/health/ready")).status_code == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("the API did not come back")


async def test_a_killed_pooler_comes_back_with_its_routes(driver: Driver, stack: Stack) -> None:
    slug = fresh_slug("pooler-dies")
    await driver.create(slug)
    async with await clients_of(driver, slug) as clients:
        pid = await asyncio.to_thread(stack.kill, "pooler-p1", signal.SIGKILL)
        await asyncio.to_thread(stack.wait_running, "pooler-p1", other_than=pid)
        await clients.until_all_answer()
        other = [client for client in clients.all if not client.errors]
        assert len(other) >= len(clients.all) // 2, "the other pooler's clients saw errors too"
    await driver.assert_clean()


async def test_provisioning_goes_on_while_an_agent_is_away(driver: Driver, stack: Stack) -> None:
    """A pooler whose agent is dead catches up by itself when the agent is back."""
    await asyncio.to_thread(stack.halt, "agent-p2")
    try:
        slug = fresh_slug("one-agent")
        begun = await driver.begin_create(slug)
        ended = await driver.finish(begun, seconds=60)
        assert ended["state"] == "succeeded"
    finally:
        await asyncio.to_thread(stack.restart, "agent-p2")
    async with await clients_of(driver, slug):
        pass
    await driver.assert_clean()


async def test_suspension_cuts_every_client_within_two_seconds(driver: Driver) -> None:
    """S-14: pooled, idle in transaction, and session clients; data stays."""
    slug = fresh_slug("cut")
    await driver.create(slug)
    revealed = await driver.dsn(slug)
    idle = await asyncpg.connect(revealed["dsn"], statement_cache_size=0)
    await idle.execute("BEGIN")
    await idle.fetchval("SELECT count(*) FROM patients.patient")
    session = await asyncpg.connect((await driver.dsn(slug, "session"))["dsn"])
    async with await clients_of(driver, slug) as clients:
        began = time.monotonic()
        await driver.run(slug, "suspend")
        await asyncio.sleep(max(0.0, began + 2.0 - time.monotonic()))
        answered = [client.answers for client in clients.all]
        await asyncio.sleep(1)
        assert [client.answers for client in clients.all] == answered
        for connection in (idle, session):
            try:
                await connection.fetchval("SELECT 1", timeout=2)
            except CUT:
                connection.terminate()
                continue
            raise AssertionError("a client that was connected before still gets answers")
        problem = await driver.api.post(f"/v1/tenants/{slug}/dsn", json={})
        assert problem.status_code == 409
        await driver.run(slug, "resume")
        await clients.until_all_answer()
    await driver.assert_clean()


async def test_rotation_fails_no_transaction(driver: Driver) -> None:
    """Clients that ask for the DSN anew before the grace ends never see an error (F22)."""
    slug = fresh_slug("rotating")
    await driver.create(slug)
    logins = set()
    for _ in range(3):
        logins.add((await driver.dsn(slug))["login"])
        async with await clients_of(driver, slug) as old:
            await driver.run(slug, "rotate", grace_seconds=4)
            async with await clients_of(driver, slug) as new:
                await old.until_all_answer()
                assert (old.errors, new.errors) == (0, 0)
                old.stop()
                await retired(driver, slug)
                await new.until_all_answer()
                assert (old.errors, new.errors) == (0, 0)
    assert len(logins) == 2
    await driver.assert_clean()


async def retired(driver: Driver, slug: str) -> None:
    """Wait until the grace is over and the previous login is gone."""
    for _ in range(150):
        answer = await driver.api.get("/v1/operations", params={"tenant": slug})
        newest = answer.json()["items"][0]
        if newest["kind"] == "retire_login":
            await driver.finish(newest)
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the previous login was not retired")


async def test_a_login_that_changed_itself_is_put_back(driver: Driver) -> None:
    """S-06: a tenant may change its own password and settings; the catalog's return."""
    slug = fresh_slug("drifting")
    await driver.create(slug)
    revealed = await driver.dsn(slug)
    connection = await asyncpg.connect(revealed["dsn"], statement_cache_size=0)
    await connection.execute("ALTER ROLE CURRENT_USER SET statement_timeout = 0")
    await connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine-now-not-yours'")
    await connection.close()
    found = await driver.findings()
    assert [(f["code"], f["subject"]) for f in found] == [("I-8", slug)]
    await driver.call("POST", "/v1/check/repairs", timeout=60)
    connection = await asyncpg.connect(revealed["dsn"], statement_cache_size=0)
    assert await connection.fetchval("SHOW statement_timeout") == "1min"
    await connection.close()
    await driver.assert_clean()
