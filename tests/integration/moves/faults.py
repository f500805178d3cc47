"""Ways to disturb a move at a chosen place, and what must be true whatever was done."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from deploy.local.stack import Stack
from tests.driver import OVER, Driver
from tests.integration.moves.writers import Fleet

SECONDS = 240
_WORKER = "worker-transfer"


def frozen_workers(stack: Stack, worker: str = _WORKER) -> list[psutil.Process]:
    """The processes of this stack's worker, or of both, that failpoints have frozen."""
    found = []
    both = {worker, f"{worker}-2"}
    parents = [one["pid"] for one in stack.facts()["processes"] if one["name"] in both]
    for child in (c for pid in parents for c in psutil.Process(pid).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_STOPPED:
                found.append(child)
    return found


async def frozen_worker(stack: Stack, worker: str = _WORKER) -> psutil.Process:
    """The one that a failpoint has frozen, as soon as it is."""
    async with asyncio.timeout(SECONDS):
        while not (found := await asyncio.to_thread(frozen_workers, stack, worker)):
            await asyncio.sleep(0.02)
    return found[0]


@asynccontextmanager
async def frozen(stack: Stack, worker: str = _WORKER) -> AsyncIterator[psutil.Process]:
    """The frozen worker, and nobody takes over from it until the block ends."""
    process = await frozen_worker(stack, worker)
    parent = await asyncio.to_thread(stack.pid, worker)
    os.kill(parent, signal.SIGSTOP)
    try:
        yield process
    finally:
        os.kill(parent, signal.SIGCONT)
        process.send_signal(signal.SIGCONT)


@contextmanager
def thawed_at_last(process: psutil.Process) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def overtaken(catalog: Any, stack: Stack, operation: dict[str, Any]) -> int:
    """Let each worker that freezes be overtaken, and wake it then; how many there were.

    Until the operation is over.
    """
    frozen_at: dict[psutil.Process, int] = {}
    woken = 0
    look = "SELECT epoch, state FROM operations WHERE subject = $1 AND kind = $2 AND actor <> ''"
    async with asyncio.timeout(SECONDS):
        while True:
            rows = await catalog.fetch(
                f"{look} ORDER BY created_at DESC LIMIT 1", operation["tenant"], operation["kind"]
            )
            epoch, state = rows[0]["epoch"], rows[0]["state"]
            for process in await asyncio.to_thread(frozen_workers, stack):
                if frozen_at.setdefault(process, epoch) < epoch:
                    process.send_signal(signal.SIGCONT)
                    del frozen_at[process]
                    woken += 1
            if state in OVER:
                return woken
            await asyncio.sleep(0.02)


async def prove(driver: Driver, stack: Stack, look: Any, fleet: Fleet, server: str) -> None:
    """Nothing is lost, every pooler leads to ``server``, and the catalog matches reality."""
    await driver.settle()
    assert (await driver.call("GET", f"/v1/tenants/{fleet.slug}"))["server"] == server
    (there,) = (one for one in stack.facts()["servers"] if one["name"] == server)
    for door in {(d["host"], d["port"], d["database"]): d for d in fleet.doors}.values():
        connection = await asyncpg.connect(**door, timeout=60)
        assert await connection.fetchval("SELECT inet_server_port()") == there["port"]
        await connection.close()
    async with look(fleet.slug) as inside:
        await fleet.check(inside)
    await driver.assert_clean()


@asynccontextmanager
async def administrator(
    stack: Stack, server: str, database: str = "postgres"
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The administrator of a server of the stack."""
    (there,) = (one for one in stack.facts()["servers"] if one["name"] == server)
    connection = await asyncpg.connect(
        host=there["host"],
        port=there["port"],
        user=there["admin_user"],
        password=Path(there["admin_password_file"]).read_text().strip(),
        database=database,
    )
    try:
        yield connection
    finally:
        await connection.close()
