"""Servers that restart, crash, fill up, or are away in the middle of a move."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deploy.local.account import service_account
from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.moves.faults import (
    SECONDS,
    administrator,
    frozen,
    prove,
)
from tests.integration.moves.test_move import (  # noqa: F401 - a fixture
    begin,
    look,
    make,
    to_the_catalog,
)
from tests.integration.moves.writers import Fleet, Writer, writing
from tests.integration.restores.test_failures import ran

# Rows that are enough for a disk of 24 MB to be full before they are there.
LARGE = """
SET ROLE {owner};
CREATE TABLE public.large AS
    SELECT n AS id, repeat(md5(n::text), 20) AS words FROM generate_series(1, 60000) AS n;
ALTER TABLE public.large ALTER words SET STORAGE PLAIN, ADD PRIMARY KEY (id);
GRANT SELECT ON public.large TO {backup};
RESET ROLE;
"""


async def writes_on(fleet: Fleet, rows: int = 20) -> None:
    """Applications are served."""
    there = len(fleet.acked())
    async with asyncio.timeout(SECONDS):
        while len(fleet.acked()) < there + rows:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("place", [("copy_data", "rows.after"), ("wait_caught_up", "before")])
async def test_the_old_server_restarts(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
    place: tuple[str, str],
) -> None:
    slug = await make(driver, look, f"restart-{place[0][:4]}")
    driver.arm("move", *place, slug, "sigstop")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack):
            await asyncio.to_thread(stack.restart, "pg-a")
        await driver.finish(operation, SECONDS)
        await writes_on(fleet)
    await prove(driver, stack, look, fleet, "pg-b")


@pytest.mark.parametrize("place", [("copy_data", "rows.before"), ("switch_route", "fence.after")])
async def test_the_new_server_crashes_at_work(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
    place: tuple[str, str],
) -> None:
    slug = await make(driver, look, f"dies-{place[0][:4]}")
    driver.arm("move", *place, slug, "sigstop")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack):
            before = await asyncio.to_thread(stack.kill, "pg-b", signal.SIGQUIT)
            await asyncio.to_thread(stack.wait_running, "pg-b", other_than=before)
        await driver.finish(operation, SECONDS)
        await writes_on(fleet)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-b")


async def test_the_catalog_is_away_in_the_window(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    """Without it nothing is switched, and clients go on where they were."""
    slug = await make(driver, look, "catalogless")
    driver.arm("move", "switch_route", "fence.after", slug, "sigstop")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack):
            await asyncio.to_thread(stack.halt, "catalog")
        await writes_on(fleet)
        await asyncio.to_thread(stack.restart, "catalog")
        await answers(driver)
        await driver.finish(operation, SECONDS)
        await writes_on(fleet)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-b")


async def test_the_catalog_crashes_before_the_switch_is_recorded(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    """What became of the commit is asked of the catalog, not guessed."""
    slug = await make(driver, look, "unrecorded")
    driver.arm("move", "switch_route", "commit.before", slug, "sigstop")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack):
            before = await asyncio.to_thread(stack.kill, "catalog", signal.SIGQUIT)
        await asyncio.to_thread(stack.wait_running, "catalog", other_than=before)
        await answers(driver)
        await driver.finish(operation, SECONDS)
        await writes_on(fleet)
    await prove(driver, stack, look, fleet, "pg-b")


async def answers(driver: Driver) -> None:
    """Wait until the API speaks with the catalog again."""
    async with asyncio.timeout(SECONDS):
        while not (await driver.api.get("/v1/servers")).is_success:
            await asyncio.sleep(0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
async def test_the_new_server_has_no_room(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "too-large")
    async with look(slug) as inside:
        owner = await inside.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'acked'")
        backup = owner.replace("_owner", "_bak")
        await inside.execute(LARGE.format(owner=owner, backup=backup))
    async with small_disk(stack, "pg-b", 24), writing(driver, slug, sessions=0) as fleet:
        ended = await driver.over(await begin(driver, slug), SECONDS)
        await driver.settle()
        await writes_on(fleet)
    assert ended["error"]["code"] == "disk_full", ended
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")


@asynccontextmanager
async def small_disk(stack: Stack, server: str, megabytes: int) -> Any:
    """Tables made on the server meanwhile go where there is little room."""
    folder = stack.layout.home / f"{server}-small-disk"
    folder.mkdir()
    account = service_account()
    owner = f"uid={account.uid}," if account else ""
    options = f"size={megabytes}m,{owner}mode=0700"
    await ran("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        async with administrator(stack, server) as admin:
            await admin.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            await admin.execute("GRANT CREATE ON TABLESPACE small TO PUBLIC")
            await admin.execute("ALTER SYSTEM SET default_tablespace = small")
            await admin.execute("SELECT pg_reload_conf()")
            yield folder
            await admin.execute("ALTER SYSTEM RESET default_tablespace")
            await admin.execute("SELECT pg_reload_conf()")
            await admin.execute("DROP TABLESPACE small")
    finally:
        await ran("umount", "--lazy", str(folder))
        folder.rmdir()


async def test_a_slot_is_invalidated_by_what_others_write(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    """Changes are held up on the new server until the old one no longer keeps them."""
    slug = await make(driver, look, "outgrown")
    driver.arm("move", "wait_caught_up", "before", slug, "sigstop")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack), look(slug, "moving") as coming, coming.transaction():
            await coming.execute("LOCK TABLE public.acked IN ACCESS EXCLUSIVE MODE")
            await writes_on(fleet)
            await outgrow(stack, "pg-a", operation)
        ended = await driver.over(operation, SECONDS)
        await driver.settle()
        await writes_on(fleet)
    assert ended["error"]["code"] == "replication_broken", ended
    assert "max_slot_wal_keep_size" in ended["error"]["message"]
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")


async def outgrow(stack: Stack, server: str, operation: dict[str, Any]) -> None:
    """Let somebody else's WAL grow until the slot of this move is lost."""
    name = f"cp_{operation['id'].removeprefix('op_')}"
    status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1"
    async with administrator(stack, server) as admin:
        await admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
        await admin.execute("SELECT pg_reload_conf()")
        try:
            async with asyncio.timeout(60):
                while await admin.fetchval(status, name) != "lost":
                    await admin.execute(
                        "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000))"
                        "  FROM generate_series(1, 64)"
                    )
                    await admin.execute("CHECKPOINT")
        finally:
            await admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            await admin.execute("SELECT pg_reload_conf()")


async def test_who_goes_past_the_poolers_is_fenced_out(
    driver: Driver,
    stack: Stack,
    catalog: Any,
    look: Any,  # noqa: F811
) -> None:
    """Each write behind the fence fails, or is carried; none is acknowledged and left behind."""
    slug = await make(driver, look, "direct")
    async with writing(driver, slug, sessions=0) as fleet:
        direct = [Writer(await past_the_poolers(stack, catalog, fleet), session=True)] * 1
        direct += [Writer(direct[0].door, session=True) for _ in range(3)]
        fleet.writers += direct
        stop = asyncio.Event()
        tasks = [asyncio.create_task(writer.run(stop, 0.001)) for writer in direct]
        await writes_on(fleet)
        await driver.finish(await begin(driver, slug), SECONDS)
        carried = sum(len(writer.acked) for writer in direct)
        refused = sum(len(writer.errors) for writer in direct)
        await writes_on(fleet)
        stop.set()
        await asyncio.gather(*tasks)
    assert carried == sum(len(writer.acked) for writer in direct) > 0
    assert refused < sum(len(writer.errors) for writer in direct)
    pooled = [writer for writer in fleet.writers if writer not in direct]
    assert [writer.errors for writer in pooled] == [[] for _ in pooled]
    async with look(slug, "moved_from") as left:
        ids = {row["id"] for row in await left.fetch("SELECT id FROM public.acked")}
        assert {row for writer in direct for row, _ in writer.acked} <= ids
    async with look(slug) as inside:
        await fleet.check(inside)
    await driver.assert_clean()


async def past_the_poolers(stack: Stack, catalog: Any, fleet: Fleet) -> dict[str, Any]:
    """The tenant's login at its server itself."""
    (there,) = (one for one in stack.facts()["servers"] if one["name"] == "pg-a")
    name = await catalog.fetchval(
        """SELECT d.name FROM databases d JOIN tenants t ON t.id = d.tenant_id
            WHERE t.slug = $1 AND d.purpose = 'primary'""",
        fleet.slug,
    )
    return {**fleet.doors[0], "host": there["host"], "port": there["port"], "database": name}


async def test_what_an_administrator_wrote_behind_the_fence_is_found(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    """F25: evidence shows it, the move says so, and the way back is open when it is mended."""
    slug = await make(driver, look, "behind")
    driver.arm("move", "switch_route", "commit.after", slug, "sigstop")
    row = "INSERT INTO public.acked VALUES (-9, 0, 0)"
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack), look(slug, "moved_from") as left:
            await left.execute(row)
        ended = await driver.over(operation, SECONDS)
        assert ended["error"]["code"] == "content_mismatch", ended
        assert "public.acked" in ended["error"]["message"]
        refused = await driver.over(await back(driver, slug), SECONDS)
        assert refused["error"]["code"] == "content_mismatch", refused
        await driver.settle()
        async with look(slug, "moved_from") as left:
            await left.execute("DELETE FROM public.acked WHERE id = -9")
        await driver.finish(await back(driver, slug), SECONDS)
        await writes_on(fleet)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")


async def back(driver: Driver, slug: str) -> dict[str, Any]:
    found: dict[str, Any] = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
    return found


async def test_a_pooler_that_is_away_is_waited_for_before_anybody_is_paused(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    """And not waited for any more once it was taken out."""
    slug = await make(driver, look, "one-away")
    async with writing(driver, slug) as fleet:
        await add_a_pooler_that_is_away(stack)
        operation = await begin(driver, slug)
        async with asyncio.timeout(SECONDS):
            while "pooler p-gone is away" not in str(operation):
                await asyncio.sleep(0.1)
                operation = await driver.call("GET", f"/v1/operations/{operation['id']}")
        await writes_on(fleet)
        assert [writer.errors for writer in fleet.writers] == [[] for _ in fleet.writers]
        gone = await driver.api.delete("/v1/poolers/p-gone")
        assert gone.status_code == 204, gone.text
        await driver.finish(operation, SECONDS)
        await writes_on(fleet)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-b")


async def add_a_pooler_that_is_away(stack: Stack) -> None:
    """As one that has registered, and is gone since."""
    catalog = await to_the_catalog(stack)
    await catalog.execute(
        """INSERT INTO poolers (id, name, cell_id, host, port, last_seen_at)
           SELECT gen_random_uuid(), 'p-gone', id, '127.0.0.1', 1, 'epoch' FROM cells LIMIT 1"""
    )
    await catalog.close()
