"""Workers that freeze, die all at once, or lose the catalog."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

APPEARS_SECONDS = 20.0


async def frozen_worker() -> psutil.Process:
    """The Celery child that a failpoint has frozen."""
    deadline = time.monotonic() + APPEARS_SECONDS
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["status", "cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if process.info["status"] == psutil.STATUS_STOPPED and "workers.app" in words:
                return process
        await asyncio.sleep(0.05)
    raise AssertionError("no worker froze")


@contextmanager
def thawed_at_last(process: psutil.Process) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def test_a_worker_that_wakes_after_its_lease_changes_nothing(driver: Driver) -> None:
    """F2: frozen between acting and recording, overtaken, then woken."""
    slug = fresh_slug("zombie")
    driver.arm("provision", "create_database", "after", slug, "sigstop")
    begun = await driver.begin_create(slug)
    with thawed_at_last(await frozen_worker()):
        ended = await driver.finish(begun, seconds=30)
    await asyncio.sleep(1)
    after = await driver.call("GET", f"/v1/operations/{begun['id']}")
    assert after == ended, "the sleeper wrote something"
    assert [s["attempts"] for s in ended["steps"] if s["name"] == "create_database"] == [2]
    await driver.assert_clean()


async def test_a_worker_that_wakes_while_its_successor_works_stands_aside(driver: Driver) -> None:
    slug = fresh_slug("two-zombies")
    driver.arm("provision", "create_roles", "after", slug, "sigstop")
    begun = await driver.begin_create(slug)
    first = await frozen_worker()
    driver.arm("provision", "apply_template", "before", slug, "exception")
    await asyncio.sleep(2.5)
    first.send_signal(signal.SIGCONT)
    ended = await driver.finish(begun, seconds=40)
    assert ended["state"] == "succeeded"
    await driver.assert_clean()


async def test_killing_every_worker_loses_nothing(driver: Driver, stack: Stack) -> None:
    begun = [await driver.begin_create(fresh_slug("all-dead")) for _ in range(6)]
    for name in ("worker-control", "worker-transfer"):
        await asyncio.to_thread(stack.kill, name, signal.SIGKILL)
    for operation in begun:
        await driver.finish(operation, seconds=60)
    await driver.assert_clean()


async def test_a_killed_worker_leaves_no_children(stack: Stack) -> None:
    parent = psutil.Process(await asyncio.to_thread(stack.pid, "worker-control"))
    children = parent.children(recursive=True)
    assert children
    await asyncio.to_thread(stack.kill, "worker-control", signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert alive == []
    await asyncio.to_thread(stack.wait_running, "worker-control", other_than=parent.pid)


async def test_the_catalog_away_in_the_middle(driver: Driver, stack: Stack) -> None:
    """F7 for the control plane: 503 meanwhile, and everything finishes afterwards."""
    begun = [await driver.begin_create(fresh_slug("no-catalog")) for _ in range(4)]
    pid = await asyncio.to_thread(stack.pid, "catalog")
    os.kill(pid, signal.SIGQUIT)
    refused = await driver.api.get("/v1/tenants")
    if refused.status_code != 200:
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
    await asyncio.to_thread(stack.wait_running, "catalog", other_than=pid)
    for operation in begun:
        await driver.finish(await ready(driver, operation), seconds=60)
    await driver.assert_clean()


async def ready(driver: Driver, operation: dict[str, object]) -> dict[str, object]:
    """Wait until the API speaks with the catalog again."""
    for _ in range(200):
        answer = await driver.api.get(f"/v1/operations/{operation['id']}")
        if answer.status_code == 200:
            found: dict[str, object] = answer.json()
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("the API did not come back")


async def test_cancel_leaves_nothing_behind(driver: Driver) -> None:
    slug = fresh_slug("cancelled")
    driver.arm("provision", "publish_route", "before", slug, "sigstop")
    begun = await driver.begin_create(slug)
    sleeper = await frozen_worker()
    with thawed_at_last(sleeper):
        answer = await driver.call("POST", f"/v1/operations/{begun['id']}/cancel")
        assert answer["state"] == "cancelling"
        ended = await driver.over(begun, seconds=30)
    assert ended["state"] == "cancelled"
    assert (await driver.api.get(f"/v1/tenants/{slug}")).status_code == 404
    await driver.assert_clean()
    await driver.create(slug)
