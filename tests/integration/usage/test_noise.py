"""Who disturbs whom on a real server: named under real load, nobody on an even one."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.local.stack import Stack
from tests.conftest import Cli
from tests.driver import Driver, fresh_slug
from tests.integration.usage.loads import STEADY, WRITING, Load, loaded

TENANTS = 10
PATIENCE_SECONDS = 240.0

Server = dict[str, Any]


async def ten_tenants(driver: Driver, server: str) -> list[str]:
    slugs = [fresh_slug(f"{server}-clinic") for _ in range(TENANTS)]
    await asyncio.gather(*(driver.create(slug, server=server) for slug in slugs))
    return slugs


async def seen(driver: Driver, server: str, wanted: Callable[[Server], bool]) -> Server:
    """The server once it looks as wanted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        page = await driver.call("GET", "/v1/noisy", params={"server": server})
        found: Server = page["items"][0]
        if wanted(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(1)


async def remember(catalog: Any, slug: str, statement_ms: float) -> None:
    """Hours in which the tenant's statements took that long."""
    await catalog.execute(
        """INSERT INTO usage (grain, subject_id, server_id, at, busy_ms, pooled_transactions,
                              pooled_queries, pooled_query_ms)
           SELECT 15, t.id, d.server_id,
                  date_bin('15 minutes', now(), '2000-01-01') - n * interval '15 min',
                  1000 * $2, 1000, 1000, 1000 * $2::float8
             FROM tenants t JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary',
                  generate_series(2, 20) n
            WHERE t.slug = $1""",
        slug,
        statement_ms,
    )


async def test_the_noisy_one_of_ten_is_named_with_who_suffers_and_what_to_do(
    stack: Stack, driver: Driver, catalog: Any, cli: Cli, tmp_path: Path
) -> None:
    slugs = await ten_tenants(driver, "pg-a")
    noisy, sufferer = slugs[3], slugs[7]
    # Its statements take a few milliseconds even on an idle server, so they surely do now.
    await remember(catalog, sufferer, 0.01)
    loads = {slug: Load(WRITING, per_second=2) for slug in slugs}
    loads[noisy] = Load(WRITING, clients=8)
    loads[sufferer] = Load("SELECT count(*) FROM generate_series(1, 30000);", per_second=5)
    async with loaded(stack, driver, tmp_path, loads):
        server = await seen(
            driver, "pg-a", lambda s: any(n["since"] and n["sufferers"] for n in s["noisy"])
        )
        assert [one["tenant"] for one in server["noisy"]] == [noisy]
        (named,) = server["noisy"]
        assert named["level"] == "noisy"
        assert sufferer in {one["tenant"] for one in named["sufferers"]}
        assert server["ranked"][0]["tenant"] == noisy
        assert noisy in named["verdict"]
        assert "suffer" in named["verdict"]
        assert [one["rung"] for one in named["actions"]] == ["watch", "tighten", "move"]
        tighten, move = named["actions"][1:]
        assert (tighten["limits"]["pool_size"], tighten["why_not"]) == (2, None)
        assert (move["server"], move["why_not"]) == ("pg-b", None)
        assert "hot right now" in move["cost"]
        await assert_told(driver, cli, noisy, calm=slugs[0])
        await assert_tightened_and_loosened(stack, driver, noisy)
    await seen(driver, "pg-a", lambda s: not s["noisy"])
    await ended(driver, noisy)
    await driver.assert_clean()


async def assert_told(driver: Driver, cli: Cli, noisy: str, *, calm: str) -> None:
    """In the audit log, on the tenant's page, in the terminal and in the metrics."""
    events = await driver.call("GET", "/v1/audit", params={"tenant": noisy})
    told = [event for event in events["items"] if event["action"] == "tenant.noisy"]
    assert len(told) == 1
    page = await driver.call("GET", f"/v1/tenants/{noisy}/usage", params={"hours": 1})
    assert page["disturbance"]["level"] == "noisy"
    neighbour = await driver.call("GET", f"/v1/tenants/{calm}/usage", params={"hours": 1})
    # Other tests have written on this server in this hour, so its share of all may be small.
    assert page["shares"]["rows_written"] > 2 * neighbour["shares"]["rows_written"]
    assert page["total"]["rows_written"] > 0
    assert page["buckets"][-1]["usage"]["pooled_queries"] >= 0
    assert sum(one["usage"]["pooled_queries"] for one in page["buckets"]) > 0
    shown = await asyncio.to_thread(cli, "noisy", "--server", "pg-a")
    assert shown.code == 0
    assert f"noisy: {noisy} disturbs pg-a" in shown.stdout
    shown = await asyncio.to_thread(cli, "usage", noisy)
    assert "disturbs pg-a" in shown.stdout
    proposal = await driver.call("GET", f"/v1/tenants/{noisy}/moves/proposal")
    assert proposal["hot"]


async def assert_tightened_and_loosened(stack: Stack, driver: Driver, slug: str) -> None:
    """Pools of every pooler and limits of the logins, while all eight clients go on."""
    body = {"pool_size": 2, "session_pool_size": 2, "connections": 15, "reason": "too much"}
    path = f"/v1/tenants/{slug}/limits"
    await driver.finish(await driver.call("PUT", path, json=body))
    found = await driver.call("GET", path)
    assert (found["in_force"]["connections"], found["reason"]) == (15, "too much")
    assert pools(stack, slug) == {2}
    await driver.assert_clean()
    await driver.finish(await driver.call("DELETE", path))
    assert (await driver.call("GET", path))["own"] == {}
    assert pools(stack, slug) == {5}


def pools(stack: Stack, slug: str) -> set[int]:
    """The sizes in the files that the poolers were read back with."""
    lines = [
        line
        for file in stack.layout.home.rglob("databases.ini")
        for line in file.read_text().splitlines()
        if line.partition(" ")[0] in (slug, f"{slug}_session")
    ]
    assert len(lines) == 4, lines
    return {int(line.partition("pool_size=")[2].partition(" ")[0]) for line in lines}


async def ended(driver: Driver, slug: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        events = await driver.call("GET", "/v1/audit", params={"tenant": slug})
        if any(event["action"] == "tenant.quiet" for event in events["items"]):
            return
        assert time.monotonic() < deadline, "the disturbance never ended"
        await asyncio.sleep(1)


async def test_an_even_load_over_all_ten_is_no_alarm(
    stack: Stack, driver: Driver, catalog: Any, tmp_path: Path
) -> None:
    """Each keeps more than one session busy: enough to be named, were it alone."""
    slugs = await ten_tenants(driver, "pg-b")
    loads = {slug: Load(STEADY, clients=3, per_second=None) for slug in slugs}
    async with loaded(stack, driver, tmp_path, loads):

        def all_busy(server: Server) -> bool:
            assert server["noisy"] == []
            busy = {one["tenant"]: one["rates"]["time"] for one in server["ranked"]}
            return set(slugs) <= set(busy) and all(busy[slug] > 1.0 for slug in slugs)

        await seen(driver, "pg-b", all_busy)
        looked = await catalog.fetchval("SELECT clock_timestamp()")
        for _ in range(5):
            await another_round(catalog, "pg-b", looked)
            assert all_busy(await seen(driver, "pg-b", all_busy))
            looked = await catalog.fetchval("SELECT clock_timestamp()")
    assert (
        await catalog.fetchval(
            """SELECT count(*) FROM disturbances n JOIN tenants t ON t.id = n.tenant_id
           WHERE t.slug = ANY ($1)""",
            slugs,
        )
        == 0
    )


async def another_round(catalog: Any, server: str, after: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await catalog.fetchval(
        """SELECT taken_at > $2 FROM usage_rounds r JOIN servers s ON s.id = r.server_id
           WHERE s.name = $1""",
        server,
        after,
    ):
        assert time.monotonic() < deadline, "nobody looks at the server any more"
        await asyncio.sleep(0.2)
