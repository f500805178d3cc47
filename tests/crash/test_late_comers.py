"""Operations that come late, come again or end half-way, and requests that cross them."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import redis
from celery import Celery

from control_plane.adapters.doorbell import ADVANCE
from control_plane.domain.names import show
from control_plane.domain.plans import PLANS, Kind
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

UNHEARD = 600
# The pools are tended every 2 s.
TICKS_SECONDS = 5.0


async def plant(catalog: Any, kind: Kind, done: int = 0, **columns: Any) -> str:
    """An operation as an earlier time left it, with its first ``done`` steps behind it."""
    operation_id = uuid4()
    values = {
        "id": operation_id,
        "kind": kind,
        "subject": f"planted-{kind}",
        "queue": PLANS[kind].queue,
        "actor": "test",
        **columns,
    }
    names = ", ".join(values)
    marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await catalog.execute("BEGIN")
    await catalog.execute(
        f"""INSERT INTO operations ({names}, deadline)
            VALUES ({marks}, now() + interval '1 hour')""",  # noqa: S608 - the test's own columns
        *values.values(),
    )
    await catalog.execute(
        """INSERT INTO steps (operation_id, position, name, state, finished_at)
           SELECT $1, s.position - 1, s.name, CASE WHEN s.position <= $3 THEN 'done'
                  WHEN s.position = $3 + 1 AND $4 THEN 'failed' ELSE 'pending' END,
                  CASE WHEN s.position <= $3 OR s.position = $3 + 1 AND $4 THEN now() END
           FROM unnest($2::text[]) WITH ORDINALITY AS s (name, position)""",
        operation_id,
        list(PLANS[kind].steps),
        done,
        columns.get("state") == "failed",
    )
    await catalog.execute("COMMIT")
    return show("op", operation_id)


async def over(driver: Driver, shown: str) -> dict[str, Any]:
    return await driver.over(await driver.call("GET", f"/v1/operations/{shown}"), seconds=30)


async def tenant_id(catalog: Any, slug: str) -> UUID:
    found: UUID = await catalog.fetchval("SELECT id FROM tenants WHERE slug = $1", slug)
    return found


async def fail_at(driver: Driver, catalog: Any, kind: Kind, step: str, slug: str) -> dict[str, Any]:
    """Begin ``kind`` and let it run out of time at ``step``."""
    for moment in ("before", "after"):
        driver.arm(kind, step, moment, slug, "exception")
    begun = await (driver.begin_create(slug) if kind == "provision" else driver.begin(slug, kind))
    await catalog.execute(
        "UPDATE operations SET deadline = now() WHERE subject = $1 AND kind = $2", slug, kind
    )
    ended = await driver.over(begun)
    assert ended["state"] == "failed", ended
    for moment in ("before", "after"):
        (driver.failpoints / f"{kind}.{step}.{moment}@{slug}").unlink(missing_ok=True)
    return ended


async def test_preparing_a_database_that_is_gone_ends(driver: Driver, catalog: Any) -> None:
    shown = await plant(catalog, "prepare", database_id=uuid4())
    assert (await over(driver, shown))["error"]["code"] == "not_found"
    await driver.assert_clean()


async def test_a_prepare_that_ends_badly_spares_a_tenant_that_has_the_database(
    driver: Driver, catalog: Any
) -> None:
    """Offered, claimed, and only then out of time before the last outcome was recorded."""
    slug = fresh_slug("claimed-early")
    await driver.create(slug)
    database_id = await catalog.fetchval(
        "SELECT id FROM databases WHERE tenant_id = $1", await tenant_id(catalog, slug)
    )
    driver.arm("prepare", "offer_database", "before", slug, "exception")
    driver.arm("prepare", "offer_database", "after", slug, "exception")
    shown = await plant(catalog, "prepare", done=4, subject=slug, database_id=database_id)
    await catalog.execute("UPDATE operations SET deadline = now() WHERE subject = $1", slug)
    await over(driver, shown)
    for left in driver.failpoints.glob(f"prepare.*@{slug}"):
        left.unlink()
    purpose = "SELECT purpose FROM databases WHERE id = $1"
    assert await catalog.fetchval(purpose, database_id) == "primary"
    await driver.assert_clean()


async def test_a_retirement_that_comes_late_spares_the_login_in_use(
    driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("late-retirement")
    await driver.create(slug)
    shown = await plant(
        catalog,
        "retire_login",
        subject=slug,
        tenant_id=await tenant_id(catalog, slug),
        input=json.dumps({"slot": "a"}),
    )
    ended = await over(driver, shown)
    assert ended["state"] == "succeeded"
    assert [step["state"] for step in ended["steps"]] == ["done", "skipped", "skipped", "done"]
    connection = await asyncpg.connect((await driver.dsn(slug))["dsn"], statement_cache_size=0)
    await connection.close()
    await driver.assert_clean()


async def test_a_failure_of_the_past_is_not_continued(driver: Driver, catalog: Any) -> None:
    """Going on with this rotation would open the logins of a suspended tenant."""
    slug = fresh_slug("old-failure")
    await driver.create(slug)
    shown = await plant(
        catalog,
        "rotate",
        done=1,
        subject=slug,
        tenant_id=await tenant_id(catalog, slug),
        input=json.dumps({"grace_seconds": 1}),
        state="failed",
        finished_at=await catalog.fetchval("SELECT now()"),
        error_code="server_unavailable",
    )
    await driver.run(slug, "suspend")
    refused = await driver.api.post(f"/v1/operations/{shown}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert "suspend op_" in refused.json()["detail"]
    await driver.assert_clean()


async def test_the_alias_of_a_tenant_given_up_is_free_at_once(
    driver: Driver, catalog: Any, stack: Stack
) -> None:
    slug = fresh_slug("given-up")
    await asyncio.to_thread(stack.halt, "worker-transfer")
    try:
        failed = await fail_at(driver, catalog, "provision", "verify_login", slug)
        refused = await driver.api.post(f"/v1/operations/{failed['id']}/retry")
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
        assert "create it again" in refused.json()["detail"]
        await driver.create(slug)
    finally:
        await asyncio.to_thread(stack.restart, "worker-transfer")
    await driver.assert_clean()


async def test_what_is_given_up_under_its_first_lease_leaves_nothing(
    driver: Driver, catalog: Any, stack: Stack
) -> None:
    """A database of the pool that was marked a moment ago is this tenant's, and nobody else's."""
    slug = fresh_slug("given-up-at-once")
    pooled = """SELECT count(*) FROM databases d JOIN servers s ON s.id = d.server_id
                WHERE d.purpose = 'pooled' AND s.name = 'pg-a'"""
    while not await catalog.fetchval(pooled):
        await asyncio.sleep(0.2)
    await asyncio.to_thread(stack.halt, "worker-control")
    try:
        driver.arm("provision", "verify_login", "before", slug, "exception")
        begun = await driver.begin_create(slug, server="pg-a")
        claimed = await catalog.fetchval(
            """UPDATE operations SET deadline = now() WHERE subject = $1
               RETURNING (input->>'claimed')::boolean""",
            slug,
        )
        assert claimed, "nothing was claimed: this proves nothing"
    finally:
        await asyncio.to_thread(stack.restart, "worker-control")
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "injected_failure")
    await driver.assert_clean()


async def test_a_suspension_that_failed_stays_a_cut(driver: Driver, catalog: Any) -> None:
    slug = fresh_slug("half-suspended")
    await driver.create(slug)
    await fail_at(driver, catalog, "suspend", "verify_closed", slug)
    repaired = await driver.call("POST", "/v1/check/repairs", timeout=60)
    assert slug not in {finding["subject"] for finding in repaired["repaired"]}
    assert {f["code"] for f in await driver.findings() if f["subject"] == slug} == {"I-2"}
    await driver.run(slug, "suspend")
    await driver.run(slug, "resume")
    await driver.assert_clean()


async def test_a_request_that_crosses_the_end_of_another_sees_the_state_it_left(
    driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("crossed")
    await driver.create(slug)
    await driver.run(slug, "suspend")
    await plant(
        catalog,
        "resume",
        subject=slug,
        tenant_id=await tenant_id(catalog, slug),
        due_at=await catalog.fetchval("SELECT now() + interval '1 hour'"),
    )
    await catalog.execute("BEGIN")
    await catalog.execute(
        """UPDATE operations SET state = 'cancelled', finished_at = now()
           WHERE subject = $1 AND kind = 'resume'""",
        slug,
    )
    asked = asyncio.create_task(driver.api.post(f"/v1/tenants/{slug}/rotations", json={}))
    await asyncio.sleep(1)
    await catalog.execute("COMMIT")
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    await driver.run(slug, "resume")
    await driver.assert_clean()


async def test_a_pool_that_cannot_be_filled_is_left_alone_for_a_while(
    driver: Driver, catalog: Any
) -> None:
    await driver.settle()
    failed = await plant(
        catalog,
        "prepare",
        server_id=await catalog.fetchval("SELECT id FROM servers WHERE name = 'pg-b'"),
        database_id=uuid4(),
        state="failed",
        finished_at=await catalog.fetchval("SELECT now()"),
        error_code="disk_full",
    )
    begun = """SELECT count(*) FROM operations o JOIN servers s ON s.id = o.server_id
               WHERE o.kind = 'prepare' AND s.name = 'pg-b'"""
    # A tick that was under way may not have seen it.
    await asyncio.sleep(TICKS_SECONDS / 2)
    await driver.settle()
    before = await catalog.fetchval(begun)
    await driver.create(fresh_slug("drains-pg-b"), server="pg-b")
    await asyncio.sleep(TICKS_SECONDS)
    assert await catalog.fetchval(begun) == before
    await catalog.execute(
        "UPDATE operations SET finished_at = now() - interval '1 hour' WHERE subject = $1",
        "planted-prepare",
    )
    for _ in range(100):
        if await catalog.fetchval(begun) > before:
            break
        await asyncio.sleep(0.2)
    assert await catalog.fetchval(begun) > before, failed
    await driver.assert_clean()


async def test_a_queue_that_nobody_empties_does_not_grow(driver: Driver, stack: Stack) -> None:
    facts = stack.facts()["redis"]
    password = Path(facts["password_file"]).read_text().strip()
    url = f"redis://:{password}@{facts['host']}:{facts['port']}/0"
    await driver.settle()
    await asyncio.to_thread(stack.halt, "worker-transfer")
    client = redis.Redis.from_url(url)
    try:
        await asyncio.to_thread(fill, url)
        await driver.create(fresh_slug("leaves-work"))
        await asyncio.sleep(3)
        before = await asyncio.to_thread(client.llen, "transfer")
        await asyncio.sleep(3)
        after = await asyncio.to_thread(client.llen, "transfer")
        assert UNHEARD <= before == after
        assert await driver.operations(state="pending"), "nothing was due: this proves nothing"
    finally:
        client.close()
        await asyncio.to_thread(stack.restart, "worker-transfer")
    await driver.assert_clean()


def fill(url: str) -> None:
    app = Celery("tests", broker=url)
    for _ in range(UNHEARD):
        app.send_task(ADVANCE, args=["0" * 26], queue="transfer")
    app.close()
