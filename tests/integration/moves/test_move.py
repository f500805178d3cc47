"""A tenant moved over the running stack while it is written to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from control_plane.domain.names import show
from control_plane.domain.plans import PLANS
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.moves.writers import prepare, writing

MOMENTS = ("before", "after")
WRITTEN_SECONDS = 1.0


async def to_the_catalog(stack: Stack) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection that no restart of the catalog has broken."""
    facts = stack.facts()["catalog"]
    return await asyncpg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["user"],
        password=Path(facts["password_file"]).read_text().strip(),
        database=facts["database"],
    )


@asynccontextmanager
async def inside(
    stack: Stack, driver: Driver, slug: str, which: str = "primary"
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The administrator inside the tenant's database, or inside the one it has moved from."""
    tenant = await driver.call("GET", f"/v1/tenants/{slug}")
    catalog = await to_the_catalog(stack)
    row = await catalog.fetchrow(
        """SELECT d.name, s.name AS server FROM databases d JOIN servers s ON s.id = d.server_id
           JOIN tenants t ON t.id = d.tenant_id
           WHERE t.slug = $1 AND t.state <> 'deleted' AND d.purpose = $2""",
        tenant["slug"],
        which,
    )
    await catalog.close()
    assert row is not None, f"{slug} has no database that is {which}"
    (server,) = (one for one in stack.facts()["servers"] if one["name"] == row["server"])
    connection = await asyncpg.connect(
        host=server["host"],
        port=server["port"],
        user=server["admin_user"],
        password=Path(server["admin_password_file"]).read_text().strip(),
        database=row["name"],
    )
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def look(stack: Stack, driver: Driver) -> AsyncIterator[Any]:
    """Enters a tenant's database; afterwards no way back is open, for each keeps a worker."""
    yield lambda slug, which="primary": inside(stack, driver, slug, which)
    await driver.settle()
    catalog = await to_the_catalog(stack)
    rows = await catalog.fetch("SELECT tenant_id FROM moves WHERE state = 'reversible'")
    await catalog.close()
    for row in rows:
        path = f"/v1/tenants/{show('tn', row['tenant_id'])}/moves/finish"
        await driver.finish(await driver.call("POST", path, json={"without_backup": True}))


async def make(driver: Driver, look: Any, word: str) -> str:
    slug = fresh_slug(word)
    async with asyncio.timeout(60):
        while not all(s["reachable"] for s in (await driver.call("GET", "/v1/servers"))["items"]):
            await asyncio.sleep(0.2)
    tenant = await driver.create(slug, server="pg-a")
    async with look(slug) as connection:
        await prepare(connection, tenant["id"])
    return slug


async def begin(driver: Driver, slug: str, server: str = "pg-b", **more: Any) -> dict[str, Any]:
    body = {"server": server, **more}
    operation: dict[str, Any] = await driver.call("POST", f"/v1/tenants/{slug}/moves", json=body)
    return operation


async def test_written_to_all_along_there_and_back(driver: Driver, look: Any) -> None:
    slug = await make(driver, look, "written")
    made = await driver.call("GET", f"/v1/tenants/{slug}")
    async with writing(driver, slug) as fleet:
        await asyncio.sleep(WRITTEN_SECONDS)
        ended = await driver.finish(await begin(driver, slug), 180)
        print([(s["name"], s["detail"]) for s in ended["steps"]])
        await asyncio.sleep(WRITTEN_SECONDS)
        assert await driver.findings() == []
        there = len(fleet.acked())
        moved = await driver.call("GET", f"/v1/tenants/{slug}")
        assert moved["schema_revision"] == made["schema_revision"]
        async with look(slug, "moved_from") as source:
            kept = await source.fetchval("SELECT state FROM cp_meta.identity")
            assert kept == "previous"
        back = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
        ended = await driver.finish(back, 180)
        print([(s["name"], s["detail"]) for s in ended["steps"]])
        await asyncio.sleep(WRITTEN_SECONDS)
    print("longest", [round(w.longest, 3) for w in fleet.pooled], len(fleet.acked()), there)
    assert len(fleet.acked()) > there > 0
    # Whoever pools transactions has seen no error; sessions were cut off twice and came back.
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-a"
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()


async def test_finished_without_a_backup(driver: Driver, look: Any) -> None:
    slug = await make(driver, look, "finished")
    await driver.finish(await begin(driver, slug), 180)
    refused = await driver.api.post(f"/v1/tenants/{slug}/moves/finish")
    assert refused.status_code == 409
    assert "--without-backup" in refused.json()["detail"]
    migrating = await driver.api.post(f"/v1/tenants/{slug}/migrations")
    assert migrating.status_code == 409
    again = await driver.api.post(f"/v1/tenants/{slug}/moves", json={"server": "pg-a"})
    assert again.status_code == 409
    ended = await driver.call(
        "POST", f"/v1/tenants/{slug}/moves/finish", json={"without_backup": True}
    )
    await driver.finish(ended)
    await driver.assert_clean()
    gone = await driver.api.post(f"/v1/tenants/{slug}/moves/reverse")
    assert gone.status_code == 409


@pytest.mark.parametrize("action", ["exception", "sigkill"])
async def test_every_boundary(driver: Driver, look: Any, action: str) -> None:
    steps = PLANS["move"].steps
    places = [(step, moment) for step in steps for moment in MOMENTS]
    places += [
        ("switch_route", f"{at}.{moment}") for at in ("fence", "commit") for moment in MOMENTS
    ]
    slug = await make(driver, look, f"bound-{action[:4]}")
    armed = [driver.arm("move", step, moment, slug, action) for step, moment in places]
    async with writing(driver, slug, sessions=0) as fleet:
        ended = await driver.finish(await begin(driver, slug), 400)
    print([(s["name"], s["attempts"], s["detail"]) for s in ended["steps"]])
    print(
        "errors",
        sum(len(w.errors) for w in fleet.writers),
        {e for w in fleet.writers for e in w.errors},
    )
    assert [path.name for path in armed if path.exists()] == []
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()
    armed = [
        driver.arm("move_reverse", step, moment, slug, action)
        for step in PLANS["move_reverse"].steps
        for moment in MOMENTS
    ]
    async with writing(driver, slug, sessions=0) as again:
        await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse"), 400)
    assert [path.name for path in armed if path.exists()] == []
    async with look(slug) as connection:
        await fleet.check(connection)
        await again.check(connection)
    await driver.assert_clean()


@pytest.mark.parametrize("step", PLANS["move"].steps[:-5])
async def test_cancelled_before_the_switch(driver: Driver, look: Any, step: str) -> None:
    """A worker is held before each step by an error, and the move is cancelled there."""
    slug = await make(driver, look, f"cancel-{step.replace('_', '-')[:10]}x")
    armed = driver.arm("move", step, "before", slug, "exception")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        while armed.exists():
            await asyncio.sleep(0.02)
        asked = await driver.api.post(f"/v1/operations/{operation['id']}/cancel")
        ended = await driver.over(operation, 120)
        if asked.is_success:
            assert ended["state"] == "cancelled", ended
        await driver.settle()
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    tenant = await driver.call("GET", f"/v1/tenants/{slug}")
    assert tenant["server"] == ("pg-a" if asked.is_success else "pg-b")
    async with look(slug) as connection:
        await fleet.check(connection)
    await driver.assert_clean()
