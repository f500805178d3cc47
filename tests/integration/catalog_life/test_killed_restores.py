"""A restore of the catalog that is killed, and begun again: it goes on from wherever it was."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from tests.integration.catalog_life.lost import Machine, machine_of
from tests.integration.catalog_life.test_copies import as_administrator

# What loads a catalog makes its triggers near the end, and waits for who holds this.
_HOLD = "LOCK TABLE pg_trigger IN SHARE MODE"
_IS_HELD = """SELECT count(*) > 0 FROM pg_locks
               WHERE relation = 'pg_trigger'::regclass AND NOT granted"""


@pytest.fixture
def empty(stack: Stack) -> Iterator[Machine]:
    """A machine whose catalog is an empty database beside the session's."""
    machine = machine_of(stack)
    machine("admin", "catalog", "backup")
    as_administrator(stack, "CREATE DATABASE tenantry_killed OWNER tenantry")
    dsn = machine.environment["TENANTRY_CATALOG_DSN"].rpartition("/")[0] + "/tenantry_killed"
    try:
        yield Machine({**machine.environment, "TENANTRY_CATALOG_DSN": dsn})
    finally:
        as_administrator(stack, "DROP DATABASE tenantry_killed WITH (FORCE)")


@asynccontextmanager
async def within(stack: Stack) -> AsyncIterator[Any]:
    """The catalog's administrator in the database that is restored."""
    facts = stack.facts()["catalog"]
    connection = await asyncpg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["admin_user"],
        password=Path(facts["admin_password_file"]).read_text().strip(),
        database="tenantry_killed",
    )
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def held(administrator: Any, machine: Machine) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A restore that waits with most of the catalog loaded, until the block ends."""
    async with administrator.transaction():
        await administrator.execute(_HOLD)
        restoring = subprocess.Popen(
            [str(Path(sys.executable).with_name("tenantry")), "admin", "catalog", "restore"],
            env={"PATH": "/usr/bin:/bin", **machine.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not await administrator.fetchval(_IS_HELD):
            assert restoring.poll() is None, "it ended before anything was loaded"
            await asyncio.sleep(0.01)
        yield restoring


async def tables(administrator: Any) -> int:
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    return int(await administrator.fetchval(query))


async def goes_on(machine: Machine) -> None:
    """Restoring again ends as if nothing had been."""
    restored = await asyncio.to_thread(machine.json, "admin", "catalog", "restore")
    (newest, *_) = await asyncio.to_thread(machine.json, "admin", "catalog", "list")
    assert (restored["id"], restored["content"]) == (newest["id"], newest["content"])
    await asyncio.to_thread(machine, "admin", "catalog", "accept", "--dry-run")


async def test_killed_while_it_loads_it_leaves_nothing(stack: Stack, empty: Machine) -> None:
    async with within(stack) as administrator:
        async with held(administrator, empty) as restoring:
            restoring.send_signal(signal.SIGKILL)
            restoring.wait()
        while (
            await administrator.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            > 1
        ):
            await asyncio.sleep(0.01)
        assert await tables(administrator) == 0
    await goes_on(empty)


async def test_ended_before_it_compared_it_compares_later(stack: Stack, empty: Machine) -> None:
    """The server lets nobody in any more once everything is loaded."""
    async with within(stack) as administrator:
        async with held(administrator, empty) as restoring:
            as_administrator(stack, "ALTER DATABASE tenantry_killed ALLOW_CONNECTIONS false")
        assert await asyncio.to_thread(restoring.wait) != 0
        assert await tables(administrator) > 0
        as_administrator(stack, "ALTER DATABASE tenantry_killed ALLOW_CONNECTIONS true")
        await goes_on(empty)
        await administrator.execute("DELETE FROM api_keys")
    refused = await asyncio.to_thread(empty.run, "admin", "catalog", "restore")
    assert (refused.returncode, "is not this backup" in refused.stderr) == (4, True)
