"""Backups and restores on the whole stack, as operators and applications see them."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from control_plane.adapters.object_stores.opening import open_store
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.config import BackupSettings, Secret
from control_plane.domain.names import parse
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

LOAD = """
\\set n random(1, 1000000000)
BEGIN;
SELECT set_config('app.user_id', 'dr-ada', true);
INSERT INTO public.city (country_code, region, name) VALUES ('GB', 'England', 'city-' || :n)
    ON CONFLICT DO NOTHING;
COMMIT;
"""
SECONDS = 120


@asynccontextmanager
async def application(driver: Driver, slug: str) -> AsyncIterator[Any]:
    """A connection with the tenant's DSN, as its application has it."""
    connection = await asyncpg.connect((await driver.dsn(slug))["dsn"], statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


async def write(driver: Driver, slug: str, *names: str) -> None:
    async with application(driver, slug) as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', 'dr-ada', true)")
        await connection.executemany(
            "INSERT INTO public.city (country_code, region, name) VALUES ('GB', 'England', $1)",
            [(name,) for name in names],
        )


async def cities(driver: Driver, slug: str) -> set[str]:
    async with application(driver, slug) as connection:
        return {row["name"] for row in await connection.fetch("SELECT name FROM public.city")}


async def inside(stack: Stack, driver: Driver, catalog: Any, slug: str) -> Any:
    """The administrator inside the database that serves the tenant now."""
    tenant = await driver.call("GET", f"/v1/tenants/{slug}")
    name = await catalog.fetchval(
        "SELECT name FROM databases WHERE tenant_id = $1 AND purpose = 'primary'",
        parse("tn", tenant["id"]),
    )
    (server,) = (s for s in stack.facts()["servers"] if s["name"] == tenant["server"])
    return await asyncpg.connect(
        host=server["host"],
        port=server["port"],
        user=server["admin_user"],
        password=Path(server["admin_password_file"]).read_text().strip(),
        database=name,
    )


@asynccontextmanager
async def pgbench(stack: Stack, driver: Driver, *slugs: str) -> AsyncIterator[None]:
    """Load on these tenants through the poolers; not one transaction may fail."""
    program = Path(stack.facts()["servers"][1]["bin_dir"]) / "pgbench"
    script = Path(tempfile.mkdtemp(prefix="tenantry-load-")) / "load.sql"
    script.write_text(LOAD)
    running = [
        subprocess.Popen(
            [program, "-n", "-M", "simple", "-c", "2", "-R", "40", "-T", "600", "-f", script,
             (await driver.dsn(slug))["dsn"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for slug in slugs
    ]  # fmt: skip
    try:
        yield
        assert [process.poll() for process in running] == [None] * len(running), "a load ended"
    finally:
        for process in running:
            process.terminate()
        said = [process.communicate(timeout=30)[1] for process in running]
        shutil.rmtree(script.parent)
    assert [words for words in said if "error" in words.lower()] == []


def store_of(stack: Stack) -> ObjectStore:
    """The store that the stack's backups are in."""
    settings = stack.facts()["environment"]
    backup = BackupSettings(
        s3_endpoint=settings["TENANTRY_S3_ENDPOINT"],
        s3_credentials=Secret(Path(settings["TENANTRY_S3_CREDENTIALS_FILE"]).read_text()),
    )
    return open_store(settings["TENANTRY_BACKUP_STORE"], backup)


async def restore(driver: Driver, slug: str, **body: Any) -> dict[str, Any]:
    begun = await driver.begin(slug, "restore", **{"target": "in_place"} | body)
    return await driver.finish(begun, SECONDS)


async def test_a_wiped_clinic_comes_back_while_its_neighbours_work(
    stack: Stack, driver: Driver, catalog: Any
) -> None:
    slug, left, right = (fresh_slug(word) for word in ("wiped", "left", "right"))
    await asyncio.gather(*(driver.create(one, server="pg-a") for one in (slug, left, right)))
    await write(driver, slug, "Leeds", "York")
    backup = await driver.back_up(slug)
    before = (await driver.dsn(slug))["dsn"]
    async with pgbench(stack, driver, left, right):
        wiping = await inside(stack, driver, catalog, slug)
        await wiping.execute("DROP SCHEMA bookings CASCADE; DROP TABLE public.city CASCADE")
        await wiping.close()
        await restore(driver, slug, backup_id=backup)
        assert (await driver.dsn(slug))["dsn"] == before
        assert await cities(driver, slug) == {"Leeds", "York"}
        await write(driver, slug, "Hull")
        await driver.run(slug, "restore_undo")
    undone = await inside(stack, driver, catalog, slug)
    assert await undone.fetchval("SELECT to_regclass('public.city')") is None
    await undone.close()
    await driver.run(slug, "restore_undo")
    assert await cities(driver, slug) == {"Leeds", "York", "Hull"}
    await driver.assert_clean()


async def test_a_session_stays_open_through_a_restore_of_the_clinic(driver: Driver) -> None:
    slug = fresh_slug("open")
    await driver.create(slug)
    await write(driver, slug, "Leeds")
    await driver.back_up(slug)
    await write(driver, slug, "York")
    async with application(driver, slug) as connection:
        assert await connection.fetchval("SELECT count(*) FROM public.city") == 2
        await restore(driver, slug)
        assert await connection.fetchval("SELECT count(*) FROM public.city") == 1


@pytest.mark.parametrize("place", ["data", "manifest"])
async def test_a_damaged_backup_changes_nothing_and_the_older_one_is_offered(
    stack: Stack, driver: Driver, catalog: Any, place: str
) -> None:
    slug = fresh_slug("damaged")
    await driver.create(slug)
    await write(driver, slug, "Leeds")
    older = await driver.back_up(slug)
    await write(driver, slug, "York")
    newer = await driver.back_up(slug)
    key = await catalog.fetchval(
        "SELECT CASE $2 WHEN 'data' THEN object_key ELSE manifest_key END FROM backups "
        "WHERE id = $1",
        parse("bk", newer),
        place,
    )
    store = store_of(stack)
    content = bytearray(store.get(key))
    content[-20] ^= 1
    store.put(key, bytes(content))
    begun = await driver.begin(slug, "restore", backup_id=newer, target="in_place")
    ended = await driver.over(begun, SECONDS)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "backup_corrupt")
    assert older in ended["error"]["message"]
    assert await cities(driver, slug) == {"Leeds", "York"}
    shown = await driver.call("GET", f"/v1/backups/{newer}")
    assert shown["state"] == "corrupt"
    refused = await driver.api.post(f"/v1/operations/{ended['id']}/retry")
    assert refused.status_code == 409, refused.text
    await restore(driver, slug)
    assert await cities(driver, slug) == {"Leeds"}
    await driver.assert_clean()


async def test_a_lost_object_is_found_by_the_check(
    stack: Stack, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("lost")
    await driver.create(slug)
    backup = await driver.back_up(slug)
    key = await catalog.fetchval(
        "SELECT object_key FROM backups WHERE id = $1", parse("bk", backup)
    )
    store = store_of(stack)
    kept = store.get(key)
    store.delete([key])
    (finding,) = await driver.findings()
    assert (finding["code"], finding["subject"]) == ("I-5", slug)
    store.put(key, kept)
    await driver.assert_clean()


async def test_a_clinic_of_postgres_15_is_restored_beside_on_postgres_18(driver: Driver) -> None:
    slug, copy = fresh_slug("older"), fresh_slug("newer")
    await driver.create(slug, server="pg-a")
    await write(driver, slug, "Leeds")
    await driver.back_up(slug)
    await restore(driver, slug, target={"slug": copy, "server": "pg-b"})
    assert await cities(driver, copy) == {"Leeds"}
    made = await driver.call("GET", f"/v1/tenants/{copy}")
    assert (made["server"], made["state"]) == ("pg-b", "active")
    await write(driver, copy, "York")
    assert await cities(driver, slug) == {"Leeds"}
    await driver.assert_clean()


async def test_a_clinic_is_restored_in_place_on_another_server_and_back(driver: Driver) -> None:
    slug = fresh_slug("across")
    await driver.create(slug, server="pg-a")
    await write(driver, slug, "Leeds")
    await driver.back_up(slug)
    before = (await driver.dsn(slug))["dsn"]
    await restore(driver, slug, server="pg-b")
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-b"
    assert (await driver.dsn(slug))["dsn"] == before
    await write(driver, slug, "York")
    await driver.run(slug, "restore_undo")
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-a"
    assert await cities(driver, slug) == {"Leeds"}
    await driver.assert_clean()


async def test_a_backup_of_postgres_18_is_refused_by_postgres_15(driver: Driver) -> None:
    slug = fresh_slug("downhill")
    await driver.create(slug, server="pg-b")
    backup = await driver.back_up(slug)
    answer = await driver.api.post(
        f"/v1/tenants/{slug}/restores",
        json={"backup_id": backup, "target": "in_place", "server": "pg-a"},
    )
    assert answer.status_code == 422, answer.text
    assert "Postgres 15" in answer.json()["detail"]


async def test_a_suspended_clinic_is_restored_and_stays_suspended(driver: Driver) -> None:
    slug = fresh_slug("asleep")
    await driver.create(slug)
    await write(driver, slug, "Leeds")
    await driver.back_up(slug)
    await write(driver, slug, "York")
    await driver.run(slug, "suspend")
    await restore(driver, slug)
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["state"] == "suspended"
    await driver.assert_clean()
    await driver.run(slug, "resume")
    assert await cities(driver, slug) == {"Leeds"}


async def test_the_object_store_dies_in_the_middle_of_a_backup(
    stack: Stack, driver: Driver
) -> None:
    slug = fresh_slug("storeless")
    await driver.create(slug)
    await write(driver, slug, "Leeds")
    begun = await driver.begin(slug, "backup")
    stack.kill("object-store")
    await driver.finish(begun, SECONDS)
    page = await driver.call("GET", f"/v1/tenants/{slug}/backups")
    assert [backup["state"] for backup in page["items"]] == ["complete"]
    await driver.finish(await driver.verify(page["items"][0]["id"]), SECONDS)
    await driver.assert_clean()
