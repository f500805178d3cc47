"""Usage in the catalog and over HTTP: rolled up without loss, read at every grain."""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from control_plane.catalog import usage
from control_plane.domain.usage import KEPT, Usage, total
from tests.conftest import Cli
from tests.driver import Driver, fresh_slug

DAY = dt.timedelta(days=1)
QUARTER = dt.timedelta(minutes=15)


@pytest.fixture
async def draft(catalog: Any) -> AsyncIterator[Any]:
    """The catalog in a transaction that is taken back."""
    transaction = catalog.transaction()
    await transaction.start()
    yield catalog
    await transaction.rollback()


async def minutes(db: Any, subject: uuid.UUID, server: uuid.UUID, since: Any, count: int) -> None:
    await db.execute(
        """INSERT INTO usage (grain, subject_id, server_id, at, seconds, busy_ms, commits,
                              connections)
           SELECT 1, $1, $2, $3::timestamptz + n * interval '1 min', 60, 10, n, n % 7
             FROM generate_series(0, $4 - 1) n""",
        subject,
        server,
        since,
        count,
    )


async def test_roll_ups_lose_nothing_and_may_run_twice(draft: Any) -> None:
    subject = uuid.uuid4()
    server = await draft.fetchval("SELECT id FROM servers WHERE name = 'pg-a'")
    today = await draft.fetchval("SELECT date_bin('1 day', now(), '2000-01-01 00:00+00')")
    since = today - 2 * DAY
    await draft.execute("UPDATE usage_rollups SET done_until = $1", since)
    await minutes(draft, subject, server, since, 2 * 24 * 60 + 7)
    assert await usage.roll_up(draft) > 2
    await draft.execute("UPDATE usage_rollups SET done_until = $1 WHERE grain = 1440", since)
    for _ in range(3):
        await usage.roll_up(draft)
    read = {
        grain: await usage.series(draft, [subject], since=since, grain=grain)
        for grain in (1, 15, 1440)
    }
    whole = {grain: total(one.usage for one in found) for grain, found in read.items()}
    assert whole[1].commits == sum(range(2 * 24 * 60 + 7))
    assert whole[15] == whole[1440] == whole[1]
    assert [one.at for one in read[1440]] == [since, since + DAY, today]
    assert read[15][1].at - read[15][0].at == QUARTER
    # A report that comes late, but in time, is in the bucket when it is closed.
    assert await usage.series(draft, [uuid.uuid4()], since=since, grain=15) == []


async def test_what_was_kept_long_enough_is_forgotten(draft: Any) -> None:
    subject = uuid.uuid4()
    server = await draft.fetchval("SELECT id FROM servers WHERE name = 'pg-a'")
    for grain, kept in KEPT.items():
        await draft.execute(
            """INSERT INTO usage (grain, subject_id, server_id, at)
               SELECT $1, $2, $3, now() - $4::interval + n * interval '1 min'
                 FROM generate_series(-3, 3) n WHERE n <> 0""",
            grain,
            subject,
            server,
            kept,
        )
    await usage.prune(draft)
    left = await draft.fetch(
        "SELECT grain, count(*) FROM usage WHERE subject_id = $1 GROUP BY 1 ORDER BY 1", subject
    )
    assert [tuple(row) for row in left] == [(1, 3), (15, 3), (1440, 3)]


async def test_a_round_is_somebodys_or_nobodys(draft: Any) -> None:
    server = await draft.fetchval("SELECT id FROM servers WHERE name = 'pg-b'")
    await draft.execute("DELETE FROM usage_rounds WHERE server_id = $1", server)
    first = await usage.begin_round(draft, server, every=10, patience=30)
    assert first is not None
    assert first.counters is None
    assert await usage.begin_round(draft, server, every=10, patience=30) is None
    await draft.execute(
        "UPDATE usage_rounds SET claimed_until = clock_timestamp() WHERE server_id = $1", server
    )
    second = await usage.begin_round(draft, server, every=10, patience=30)
    assert second is not None
    assert not await usage.end_round(draft, first, counters=b"late", databases=1, took_ms=1.0)
    assert await usage.end_round(draft, second, counters=b"x", databases=1, took_ms=1.0)
    assert await usage.begin_round(draft, server, every=10, patience=30) is None
    third = await usage.begin_round(draft, server, every=0, patience=30)
    assert third is not None
    assert third.counters == b"x"


async def test_a_servers_row_is_the_sum_of_all_its_databases(draft: Any, driver: Driver) -> None:
    slug = fresh_slug("summed")
    await driver.create(slug, server="pg-b")
    row = await draft.fetchrow(
        """SELECT d.name, d.tenant_id, d.server_id FROM databases d
           JOIN tenants t ON t.id = d.tenant_id WHERE t.slug = $1""",
        slug,
    )
    await draft.execute("DELETE FROM usage WHERE server_id = $1", row["server_id"])
    used = {
        row["name"]: Usage(commits=5, connections=2),
        "postgres": Usage(commits=3, connections=1),
    }
    await usage.add(draft, row["server_id"], 15.0, used)
    await usage.add(draft, row["server_id"], 15.0, used)
    since = await draft.fetchval("SELECT date_trunc('minute', now()) - interval '1 min'")
    found = {one.subject_id: one for one in await usage.on_server(draft, row["server_id"], since)}
    assert set(found) == {row["tenant_id"], row["server_id"]}
    tenant, server = found[row["tenant_id"]], found[row["server_id"]]
    assert (tenant.usage.commits, tenant.usage.connections) == (10, 2)
    assert (server.usage.commits, server.usage.connections, server.seconds) == (16, 3, 30.0)


async def used_until(driver: Driver, slug: str, busy_ms: float) -> Any:
    """What the tenant used, once that is more than so many milliseconds."""
    found: Any = None
    for _ in range(600):
        page = await driver.call("GET", f"/v1/tenants/{slug}/usage", params={"hours": 1})
        found = page["total"]
        if found["busy_ms"] > busy_ms:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing was seen of {slug}: {found}")


async def test_a_statement_that_still_runs_is_seen(driver: Driver) -> None:
    slug = fresh_slug("endless")
    await driver.create(slug)
    door = await driver.dsn(slug)
    connection = await asyncpg.connect(door["dsn"], statement_cache_size=0)
    running = asyncio.create_task(connection.execute("SELECT pg_sleep(55)"))
    try:
        used = await used_until(driver, slug, 3000)
        assert used["running"] == 1
        assert not running.done(), "it was only seen when it had ended"
    finally:
        running.cancel()
        connection.terminate()
        await asyncio.wait({running})


async def test_statements_that_the_server_counts_late_are_seen(driver: Driver) -> None:
    """Postgres keeps the statistics of a session to itself while it touches no table."""
    slug = fresh_slug("unseen")
    await driver.create(slug)
    door = await driver.dsn(slug)
    connection = await asyncpg.connect(door["dsn"], statement_cache_size=0)
    stopping = asyncio.Event()

    async def work() -> None:
        while not stopping.is_set():
            await connection.execute("SELECT pg_sleep(1)")

    working = asyncio.create_task(work())
    try:
        await used_until(driver, slug, 5000)
        assert not working.done()
    finally:
        stopping.set()
        await working
        await connection.close()


async def test_what_is_inside_is_looked_up_on_demand(driver: Driver, cli: Cli) -> None:
    slug = fresh_slug("inside")
    await driver.create(slug)
    found = await driver.call("GET", f"/v1/tenants/{slug}/tables")
    names = {one["name"] for one in found["tables"]}
    assert "bookings.payment" in names
    assert not any(name.startswith("cp_meta.") for name in names)
    assert all(one["columns"] for one in found["unindexed_keys"])
    door = await driver.dsn(slug)
    connection = await asyncpg.connect(door["dsn"], statement_cache_size=0)
    await connection.fetch(
        "SELECT count(*) AS far_too_many FROM generate_series(1, 3000000) n WHERE n::text <> 'x'"
    )
    await connection.close()
    found = await driver.call("GET", f"/v1/tenants/{slug}/tables")
    (counted,) = (one for one in found["statements"] if "far_too_many" in one["text"])
    assert counted["calls"] == 1
    assert "'x'" not in counted["text"], "the server left the values out"
    shown = await asyncio.to_thread(cli, "usage", slug, "--tables")
    assert (shown.code, "bookings.payment" in shown.stdout) == (0, True)
    nowhere = await asyncio.to_thread(cli, "usage", "no-such-clinic")
    assert nowhere.code == 3


async def test_limits_are_checked_before_anything_happens(driver: Driver, cli: Cli) -> None:
    slug = fresh_slug("limits")
    await driver.create(slug)
    path = f"/v1/tenants/{slug}/limits"
    refused = await driver.api.put(path, json={"pool_size": 40})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "connections"
    rehearsed = await driver.api.put(path, json={"pool_size": 3}, params={"dry_run": "true"})
    assert rehearsed.status_code == 200
    assert (await driver.call("GET", path))["own"] == {}
    both = await asyncio.to_thread(cli, "tenants", "limit", slug, "--pool", "3", "--reset")
    assert both.code == 2
    done = await asyncio.to_thread(
        cli, "tenants", "limit", slug, "--pool", "3", "--statement-timeout", "7s", "--wait"
    )
    assert done.code == 0
    own = {"pool_size": 3, "statement_timeout_ms": 7000}
    assert (await driver.call("GET", path))["own"] == own
    # Nobody has used this endpoint yet: its pool has no connection from before.
    door = await driver.dsn(slug, "session")
    connection = await asyncpg.connect(door["dsn"], statement_cache_size=0)
    try:
        assert await connection.fetchval("SHOW statement_timeout") == "7s"
    finally:
        await connection.close()
    await driver.run(slug, "suspend")
    assert (await driver.api.delete(path)).status_code == 409
    await driver.run(slug, "resume")
    assert (await driver.call("GET", path))["own"] == own
    await driver.assert_clean()
