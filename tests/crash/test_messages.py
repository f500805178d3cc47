"""Redis is a doorbell: losing, repeating and reordering its messages costs only time."""

import asyncio
import signal
import time
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from control_plane.adapters.doorbell import ADVANCE
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.moves import faults

WATCHED_SECONDS = 1.0
FREEZES_SECONDS = 20.0
CONTROL_CHILDREN = 4


@pytest.fixture(scope="module")
def broker_url(stack: Stack) -> str:
    facts = stack.facts()["redis"]
    password = Path(facts["password_file"]).read_text().strip()
    return f"redis://:{password}@{facts['host']}:{facts['port']}/0"


def ring(broker_url: str, operation: str, times: int, queue: str = "control") -> None:
    app = Celery("tests", broker=broker_url)
    for _ in range(times):
        app.send_task(ADVANCE, args=[operation.removeprefix("op_")], queue=queue)
    app.close()


async def test_a_message_repeated_ten_times_runs_every_step_once(
    driver: Driver, broker_url: str
) -> None:
    begun = await driver.begin_create(fresh_slug("repeated"))
    await asyncio.to_thread(ring, broker_url, begun["id"], 10)
    ended = await driver.finish(begun)
    assert [step["attempts"] for step in ended["steps"]] == [1] * len(ended["steps"])
    await driver.assert_clean()


async def test_messages_in_the_wrong_order_and_queue_do_no_harm(
    driver: Driver, broker_url: str
) -> None:
    begun = [await driver.begin_create(fresh_slug("reordered")) for _ in range(4)]
    for operation in reversed(begun):
        await asyncio.to_thread(ring, broker_url, operation["id"], 2, "transfer")
    ended = [await driver.finish(operation) for operation in begun]
    # A message after the end finds nothing to do.
    await asyncio.to_thread(ring, broker_url, begun[0]["id"], 3)
    assert all(step["attempts"] == 1 for operation in ended for step in operation["steps"])
    await driver.assert_clean()


async def test_a_message_with_anything_else_in_it_changes_nothing(
    driver: Driver, broker_url: str
) -> None:
    app = Celery("tests", broker=broker_url)
    app.send_task(ADVANCE, args=["not-an-operation"], queue="control")
    app.send_task(ADVANCE, args=["0" * 26], queue="control")
    app.close()
    await driver.create(fresh_slug("after-garbage"))
    await driver.assert_clean()


async def test_flushall_in_the_middle_costs_seconds(driver: Driver, broker_url: str) -> None:
    begun = [await driver.begin_create(fresh_slug("flushed")) for _ in range(6)]
    client = redis.Redis.from_url(broker_url)
    await asyncio.to_thread(client.flushall)
    client.close()
    for operation in begun:
        await driver.finish(operation, seconds=30)
    await driver.assert_clean()


async def test_the_api_accepts_work_while_redis_is_away(driver: Driver, stack: Stack) -> None:
    await asyncio.to_thread(stack.halt, "redis")
    try:
        begun = [await driver.begin_create(fresh_slug("no-redis")) for _ in range(3)]
        assert {operation["state"] for operation in begun} == {"pending"}
    finally:
        await asyncio.to_thread(stack.restart, "redis")
    for operation in begun:
        await driver.finish(operation, seconds=60)
    await driver.assert_clean()


async def test_messages_carry_an_operation_id_and_nothing_else(
    driver: Driver, broker_url: str
) -> None:
    """S-21: what crosses the broker is read off the broker."""
    client = redis.Redis.from_url(broker_url)
    seen: list[str] = []
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py has no types here
        await driver.create(fresh_slug("watched"))
        until = time.monotonic() + WATCHED_SECONDS
        while time.monotonic() < until:
            command = await asyncio.to_thread(_next_command, monitor)
            if command is not None:
                seen.append(command)
    client.close()
    pushed = [command for command in seen if command.startswith("LPUSH control")]
    assert pushed, "nothing was rung"
    assert not any("watched" in command for command in seen)
    assert not any("SCRAM-SHA-256" in command for command in seen)


def _next_command(monitor: object) -> str | None:
    connection = monitor.connection  # type: ignore[attr-defined]  # redis-py's own attribute
    if not connection.can_read(timeout=0.5):
        return None
    return str(monitor.next_command()["command"])  # type: ignore[attr-defined]  # as above


async def test_workers_whose_acknowledgements_were_lost_go_on_working(
    driver: Driver, stack: Stack
) -> None:
    """Every child of a worker ends its task while Redis is away, so no acknowledgement arrives."""
    slugs = [fresh_slug("unacknowledged") for _ in range(CONTROL_CHILDREN)]
    for slug in slugs:
        driver.arm("provision", "activate", "after", slug, "sigstop")
    begun = [await driver.begin_create(slug) for slug in slugs]
    sleepers = await frozen_workers(stack, CONTROL_CHILDREN)
    await asyncio.to_thread(stack.halt, "redis")
    try:
        for sleeper in sleepers:
            sleeper.send_signal(signal.SIGCONT)
        await asyncio.sleep(2 * WATCHED_SECONDS)
    finally:
        await asyncio.to_thread(stack.restart, "redis")
    for operation in begun:
        await driver.finish(operation, seconds=60)
    await driver.finish(await driver.begin_create(fresh_slug("afterwards")), seconds=60)
    await driver.assert_clean()


async def frozen_workers(stack: Stack, count: int) -> list[psutil.Process]:
    """This stack's children that failpoints have frozen, once there are as many."""
    deadline = time.monotonic() + FREEZES_SECONDS
    while True:
        found = await asyncio.to_thread(faults.frozen_workers, stack, "worker-control")
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count} workers froze"
        await asyncio.sleep(0.05)
