"""Servers of the local stack, made to order: asked for, refused, found again, deleted."""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from control_plane.domain.names import decode, encode
from deploy.local import provided
from deploy.local.options import StackOptions
from deploy.local.protocol import Request
from deploy.local.stack import Stack, quiet
from tests.conftest import FAST_POSTGRES, Cli
from tests.driver import Driver, fresh_slug

PATH = "/v1/provided-servers"


async def to_the_catalog(stack: Stack) -> "asyncpg.Connection[asyncpg.Record]":
    facts = stack.facts()["catalog"]
    return await asyncpg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["user"],
        password=Path(facts["password_file"]).read_text().strip(),
        database=facts["database"],
    )


def local_server(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [one for one in stack.facts()["servers"] if one["name"] == name]


async def delete(driver: Driver, name: str) -> None:
    await driver.finish(await driver.call("DELETE", f"{PATH}/{name}"), 120)


async def test_made_used_and_deleted(driver: Driver, stack: Stack, cli: Cli) -> None:
    name = fresh_slug("made")
    made = cli("servers", "create", name, "--provider", "local", "--capacity", "20", "--wait")
    assert made.code == 0, made.stderr
    for step in ("create_instance", "wait_instance", "record_server", "wait_enrolled"):
        assert step in made.stdout
    server = await driver.call("GET", f"/v1/servers/{name}")
    assert (server["state"], server["capacity"]) == ("active", 20)
    (running,) = local_server(stack, name)
    assert running["pid"]

    catalog = await to_the_catalog(stack)
    row = await catalog.fetchrow("SELECT * FROM provided_servers WHERE name = $1", name)
    await catalog.close()
    assert row is not None
    assert (row["state"], row["sealed_password"]) == ("ready", None)
    assert decode(running["key"]) == row["id"]

    slug = fresh_slug("on-made")
    assert (await driver.create(slug, server=name))["server"] == name
    await assert_it_cannot_go(driver, name)
    await move_away(driver, slug)
    gone = cli("servers", "delete", name, "--wait")
    assert gone.code == 0, gone.stderr
    await assert_nothing_is_left(driver, stack, running)
    await driver.assert_clean()


async def assert_it_cannot_go(driver: Driver, name: str) -> None:
    refused = await driver.api.delete(f"{PATH}/{name}")
    assert refused.status_code == 409
    assert "move or delete" in refused.json()["detail"]
    removed = await driver.api.delete(f"/v1/servers/{name}")
    assert removed.status_code == 409
    assert f"tenantry servers delete {name}" in removed.json()["detail"]


async def move_away(driver: Driver, slug: str) -> None:
    moved = await driver.call("POST", f"/v1/tenants/{slug}/moves", json={"server": "pg-a"})
    await driver.finish(moved, 180)
    ended = await driver.call(
        "POST", f"/v1/tenants/{slug}/moves/finish", json={"without_backup": True}
    )
    await driver.finish(ended)


async def assert_nothing_is_left(driver: Driver, stack: Stack, running: dict[str, Any]) -> None:
    name = running["name"]
    assert local_server(stack, name) == []
    assert not Path(running["data_dir"]).exists()
    assert not Path(running["admin_password_file"]).exists()
    assert name not in {s["name"] for s in (await driver.call("GET", "/v1/servers"))["items"]}
    assert name not in {s["name"] for s in (await driver.call("GET", PATH))["items"]}
    actions = [
        event["action"]
        for event in (await driver.call("GET", "/v1/audit", params={"limit": 200}))["items"]
        if event["subject"] == name
    ]
    for action in ("server.create", "server.add", "server.delete", "server.remove"):
        assert action in actions


def test_a_stack_that_is_started_again_starts_it_too() -> None:
    home = Path(tempfile.mkdtemp(prefix="tenantry-test-", dir="/tmp"))
    stack = Stack(
        StackOptions(
            home=home,
            attached=True,
            application=False,
            servers=(),
            postgres_settings=FAST_POSTGRES,
        )
    )
    key = encode(uuid4())
    try:
        stack.start()
        stack._ask(Request("provide", "pg-again", key=key, password="first"), quiet)
        (before,) = local_server(stack, "pg-again")
        stack.stop()
        stack.start()
        (after,) = local_server(stack, "pg-again")
        assert (after["port"], after["key"]) == (before["port"], key)
        assert after["pid"] not in (None, before["pid"])
        stack._ask(Request("withdraw", key=key), quiet)
        stack.stop()
        stack.start()
        assert local_server(stack, "pg-again") == []
    finally:
        stack.stop()
        shutil.rmtree(home)


async def test_asked_for_again_under_its_id_there_is_no_second_one(
    driver: Driver, stack: Stack
) -> None:
    name, key = fresh_slug("again"), encode(uuid4())
    wish = Request("provide", name, key=key, password="first")
    stack._ask(wish, quiet)
    (running,) = local_server(stack, name)
    (known,) = (one for one in provided.known(stack.layout) if one.key == key)
    assert (known.name, known.major) == (name, running["version"])
    stack._ask(Request("provide", name, key=key, password="second"), quiet)
    (same,) = local_server(stack, name)
    assert same["pid"] == running["pid"]
    assert Path(same["admin_password_file"]).read_text().strip() == "first"

    finding = next(f for f in await driver.findings() if f["subject"] == name)
    assert "it is in no catalog" in finding["message"]

    stack._ask(Request("withdraw", key=key), quiet)
    stack._ask(Request("withdraw", key=key), quiet)
    assert local_server(stack, name) == []
    await driver.assert_clean()


async def test_a_name_that_the_stack_uses_is_refused_for_good(driver: Driver, stack: Stack) -> None:
    begun = await driver.call(
        "POST", PATH, json={"name": "worker-control", "provider": "local", "tier": "dedicated"}
    )
    ended = await driver.over(begun)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "provider_refused")
    assert "choose another name" in ended["error"]["message"]
    finding = next(f for f in await driver.findings() if f["subject"] == "worker-control")
    assert "tenantry servers delete worker-control" in finding["remedy"]
    await delete(driver, "worker-control")
    assert stack.pid("worker-control")
    await driver.assert_clean()


async def test_cancelled_while_it_is_made(driver: Driver, stack: Stack) -> None:
    name = fresh_slug("stopped")
    armed = driver.arm("create_server", "wait_instance", "before", name, "exception")
    begun = await driver.call(
        "POST", PATH, json={"name": name, "provider": "local", "tier": "dedicated"}
    )
    async with asyncio.timeout(60):
        while armed.exists():
            await asyncio.sleep(0.02)
    asked = await driver.api.post(f"/v1/operations/{begun['id']}/cancel")
    ended = await driver.over(begun)
    if asked.is_success:
        assert ended["state"] == "cancelled"
        await driver.finish(await driver.operation_on("delete_server", name))
    else:
        await delete(driver, name)
    assert local_server(stack, name) == []
    assert name not in {s["name"] for s in (await driver.call("GET", PATH))["items"]}
    await driver.assert_clean()


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        ({"name": "pg-c", "provider": "local", "storage_gb": 5}, 422, "storage_gb", "leave it out"),
        ({"name": "pg-c", "provider": "rds"}, 422, "provider", "is not set up here"),
        ({"name": "new", "provider": "local"}, 422, "name", "reserved"),
        ({"name": "pg-a", "provider": "local"}, 409, None, "choose another name"),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(
    driver: Driver, body: dict[str, Any], status: int, field: str | None, words: str
) -> None:
    refused = await driver.api.post(PATH, json=body)
    assert refused.status_code == status
    problem = refused.json()
    assert words in problem["detail"]
    assert [error["field"] for error in problem.get("errors", [])] == ([field] if field else [])


async def test_a_dry_run_makes_nothing(driver: Driver, cli: Cli) -> None:
    name = fresh_slug("rehearsed")
    told = cli("servers", "create", name, "--provider", "local", "--dry-run", "--json")
    assert told.code == 0, told.stderr
    assert json.loads(told.stdout)
    assert name not in {s["name"] for s in (await driver.call("GET", PATH))["items"]}


async def test_a_row_that_nothing_came_of_is_found(driver: Driver, stack: Stack) -> None:
    name, catalog = fresh_slug("nothing"), await to_the_catalog(stack)
    await catalog.execute(
        """INSERT INTO provided_servers (id, name, provider, wish, sealed_password)
           VALUES (gen_random_uuid(), $1, 'local', '{}', '\\x00')""",
        name,
    )
    try:
        finding = next(f for f in await driver.findings() if f["subject"] == name)
        assert "no server of the fleet" in finding["message"]
    finally:
        await catalog.execute("DELETE FROM provided_servers WHERE name = $1", name)
        await catalog.close()
