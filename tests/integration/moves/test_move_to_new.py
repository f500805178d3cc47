"""A server made for one tenant, and the tenant moved there, while its clients write."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.domain.plans import PLANS
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.moves.test_move import inside
from tests.integration.moves.writers import prepare, writing

WRITTEN_SECONDS = 1.0


@pytest.fixture
async def made(driver: Driver) -> AsyncIterator[list[str]]:
    """Slugs of tenants that go back where they came from, and their servers with them."""
    slugs: list[str] = []
    yield slugs
    for slug in slugs:
        back = await driver.api.post(f"/v1/tenants/{slug}/moves/reverse")
        if back.is_success:
            await driver.finish(back.json(), 240)
        gone = await driver.call("DELETE", f"/v1/provided-servers/{slug}")
        await driver.finish(gone, 120)


async def clinic(driver: Driver, stack: Stack, word: str, server: str = "pg-a") -> str:
    slug = fresh_slug(word)
    tenant = await driver.create(slug, server=server)
    async with inside(stack, driver, slug) as connection:
        await prepare(connection, tenant["id"])
    return slug


async def begin(driver: Driver, slug: str) -> dict[str, Any]:
    body = {"server": "new", "new_server": {"name": slug, "provider": "local"}}
    operation: dict[str, Any] = await driver.call("POST", f"/v1/tenants/{slug}/moves", json=body)
    return operation


async def test_in_one_operation_and_no_transaction_fails(
    driver: Driver, stack: Stack, made: list[str]
) -> None:
    slug = await clinic(driver, stack, "to-new")
    made.append(slug)
    async with writing(driver, slug) as fleet:
        await asyncio.sleep(WRITTEN_SECONDS)
        ended = await driver.finish(await begin(driver, slug), 300)
        await asyncio.sleep(WRITTEN_SECONDS)
    assert [step["name"] for step in ended["steps"]] == list(PLANS["move_to_new"].steps)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    assert len(fleet.acked()) > 0
    async with inside(stack, driver, slug) as connection:
        await fleet.check(connection)
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == slug
    server = await driver.call("GET", f"/v1/servers/{slug}")
    assert (server["placed"], server["capacity"], server["state"]) == (1, 1, "active")
    other = await driver.api.post(
        "/v1/tenants", json={"slug": fresh_slug("other"), "name": "Other", "server": slug}
    )
    assert other.status_code == 409
    await driver.assert_clean()


@pytest.mark.parametrize("action", ["exception", "sigkill"])
async def test_every_boundary(driver: Driver, stack: Stack, made: list[str], action: str) -> None:
    slug = await clinic(driver, stack, f"new-{action[:4]}")
    made.append(slug)
    armed = [
        driver.arm("move_to_new", step, moment, slug, action)
        for step in PLANS["move_to_new"].steps
        for moment in ("before", "after")
    ]
    async with writing(driver, slug, sessions=0) as fleet:
        await driver.finish(await begin(driver, slug), 300)
    assert [path.name for path in armed if path.exists()] == []
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    async with inside(stack, driver, slug) as connection:
        await fleet.check(connection)
    moves = await driver.operations(tenant=slug)
    assert [operation["kind"] for operation in moves].count("move") == 1
    await driver.assert_clean()


async def test_a_server_that_cannot_be_made_ends_it_and_a_retry_tries_that_again(
    driver: Driver, stack: Stack
) -> None:
    slug = await clinic(driver, stack, "no-new")
    machine = {"name": slug, "provider": "local", "version": 16}
    begun = await driver.call(
        "POST", f"/v1/tenants/{slug}/moves", json={"server": "new", "new_server": machine}
    )
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "chain_broken")
    assert "this machine has no Postgres 16" in ended["error"]["message"]
    again = await driver.call("POST", f"/v1/operations/{begun['id']}/retry")
    ended = await driver.over(again)
    assert ended["error"]["code"] == "chain_broken"
    creation = await driver.operation_on("create_server", slug)
    assert creation["steps"][0]["state"] == "failed"
    assert creation["finished_at"] > begun["created_at"]
    await driver.finish(await driver.call("DELETE", f"/v1/provided-servers/{slug}"))
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-a"
    await driver.assert_clean()


async def test_cancelled_while_the_server_is_made(driver: Driver, stack: Stack) -> None:
    slug = await clinic(driver, stack, "new-stop")
    armed = driver.arm("create_server", "wait_instance", "before", slug, "exception")
    begun = await begin(driver, slug)
    async with asyncio.timeout(60):
        while armed.exists():
            await asyncio.sleep(0.02)
    asked = await driver.api.post(f"/v1/operations/{begun['id']}/cancel")
    ended = await driver.over(begun)
    assert asked.is_success
    assert ended["state"] == "cancelled"
    creation = await driver.over(await driver.operation_on("create_server", slug))
    if creation["state"] == "cancelled":
        await driver.finish(await driver.operation_on("delete_server", slug))
    else:  # it was made before it could be cancelled, and stays as any other
        await driver.finish(await driver.call("DELETE", f"/v1/provided-servers/{slug}"))
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-a"
    await driver.assert_clean()


async def test_a_clinic_of_postgres_18_gets_a_server_of_postgres_18(
    driver: Driver, stack: Stack, made: list[str]
) -> None:
    slug = await clinic(driver, stack, "newer", "pg-b")
    made.append(slug)
    await driver.finish(await begin(driver, slug), 300)
    servers = (await driver.call("GET", "/v1/servers"))["items"]
    versions = {one["name"]: one["version"].partition(".")[0] for one in servers}
    assert versions[slug] == versions["pg-b"] == "18"


async def test_refused_at_once_when_it_cannot_be(driver: Driver, stack: Stack) -> None:
    slug = await clinic(driver, stack, "not-new", "pg-b")
    for body in (
        {"server": "new"},
        {"server": "new", "new_server": {"name": slug, "provider": "local", "version": 15}},
        {"server": "pg-b", "new_server": {"name": slug, "provider": "local"}},
    ):
        refused = await driver.api.post(f"/v1/tenants/{slug}/moves", json=body)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "new_server"
    names = {s["name"] for s in (await driver.call("GET", "/v1/provided-servers"))["items"]}
    assert slug not in names
