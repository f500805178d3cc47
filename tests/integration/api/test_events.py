"""Following an operation by server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from control_plane.adapters import clock
from control_plane.api import operations
from control_plane.api.context import Asking
from control_plane.catalog import operations as catalog_operations
from control_plane.catalog.audit import Caller
from control_plane.domain.keys import Principal
from control_plane.services.changes import Changes
from tests.integration.api.conftest import OTHER
from tests.integration.api.world import World


@asynccontextmanager
async def watching(
    client: httpx.AsyncClient, operation: str
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The snapshots of an operation as they come."""
    path = f"/v1/operations/{operation}/events"
    async with client.stream("GET", path, timeout=httpx.Timeout(10)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _snapshots(answer)


async def _snapshots(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_a_finished_operation_is_told_once(admin: httpx.AsyncClient) -> None:
    listed = await admin.get("/v1/operations", params={"tenant": OTHER})
    operation = listed.json()["items"][-1]
    async with watching(admin, operation["id"]) as snapshots:
        seen = [snapshot async for snapshot in snapshots]
    assert seen == [operation]


async def test_every_change_is_told_until_the_end(world: World, admin: httpx.AsyncClient) -> None:
    operation = await world.new_tenant("watched-clinic")
    async with watching(admin, operation["id"]) as snapshots:
        assert (await anext(snapshots))["state"] == "pending"
        claimed, lease = await world.claim(operation["id"])
        steps = len(claimed.steps)
        seen = [await anext(snapshots)]
        for position in range(steps):
            await world.end_step(lease, position, last=position == steps - 1)
            seen.append(await anext(snapshots))
        assert [snapshot["progress"]["done"] for snapshot in seen] == list(range(steps + 1))
        assert [snapshot["state"] for snapshot in seen[-2:]] == ["running", "succeeded"]
        assert [snapshot async for snapshot in snapshots] == []


async def test_what_a_long_step_says_is_told_while_it_runs(
    world: World, admin: httpx.AsyncClient
) -> None:
    operation = await world.new_tenant("talkative-clinic")
    async with watching(admin, operation["id"]) as snapshots:
        await anext(snapshots)
        claimed, _ = await world.claim(operation["id"])
        await anext(snapshots)
        for detail in ("12.0 MB of 90.1 MB", "64.0 MB of 90.1 MB"):
            async with world.ports.catalog.transaction() as db:
                await catalog_operations.tell(db, claimed.id, detail)
            seen = await anext(snapshots)
            assert (seen["progress"]["detail"], seen["steps"][0]["detail"]) == (detail, detail)


async def test_news_are_prompt_for_many_watchers(world: World, admin: httpx.AsyncClient) -> None:
    operation = await world.new_tenant("popular-clinic")

    async def see_it_start() -> float:
        async with watching(admin, operation["id"]) as snapshots:
            await anext(snapshots)
            ready.release()
            await anext(snapshots)
            return asyncio.get_running_loop().time()

    ready = asyncio.Semaphore(0)
    watchers = [asyncio.create_task(see_it_start()) for _ in range(20)]
    for _ in watchers:
        await ready.acquire()
    began = asyncio.get_running_loop().time()
    await world.claim(operation["id"])
    assert max(await asyncio.gather(*watchers)) - began < 0.8


async def test_a_request_to_stop_is_told_at_once(world: World, admin: httpx.AsyncClient) -> None:
    operation = await world.new_tenant("stopped-clinic")
    async with watching(admin, operation["id"]) as snapshots:
        await anext(snapshots)
        began = asyncio.get_running_loop().time()
        await admin.post(f"/v1/operations/{operation['id']}/cancel")
        assert (await anext(snapshots))["state"] == "cancelling"
        assert asyncio.get_running_loop().time() - began < 0.8


async def test_a_lost_listener_costs_a_second_and_comes_back(
    world: World, admin: httpx.AsyncClient
) -> None:
    operation = await world.new_tenant("unheard-clinic")
    async with watching(admin, operation["id"]) as snapshots:
        await anext(snapshots)
        assert await terminate_listeners(world) == 1
        _, lease = await world.claim(operation["id"])
        async with asyncio.timeout(3):
            assert (await anext(snapshots))["state"] == "running"
            await world.end_step(lease, 0, last=False)
            assert (await anext(snapshots))["progress"]["done"] == 1
    async with asyncio.timeout(5):
        while not (await admin.get("/health/ready")).json()["listening"]:
            await asyncio.sleep(0.05)


async def terminate_listeners(world: World) -> int:
    """End the API's LISTEN connection, as a restarted catalog would."""
    async with world.ports.catalog.connection() as db:
        return int(
            await db.fetchval(
                """SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE 'LISTEN %'"""
            )
        )


async def test_a_stranger_cannot_watch(world: World) -> None:
    operation = await world.new_tenant("private-clinic")
    async with world.client(world.tokens["own app"]) as client:
        answer = await client.get(f"/v1/operations/{operation['id']}/events")
    assert answer.status_code == 404


async def test_silence_is_broken_by_comments(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "PING_SECONDS", 0.1)
    shown = (await world.new_tenant("silent-clinic"))["id"]
    asking = Asking(world.ports, Caller(Principal(clock.new_id(), "test", frozenset({"auditor"}))))
    operation = await operations._find(asking, shown)
    changes = Changes(world.ports.catalog)
    async with changes.running():
        events = operations._events(asking, changes, operation, shown)
        sent = [(await anext(events)).encode() for _ in range(3)]
        await events.aclose()
    assert sent[0].startswith(b"event: operation")
    assert sent[1:] == [b": ping\r\n\r\n"] * 2
