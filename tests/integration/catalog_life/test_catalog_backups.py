"""Backups of the session's catalog: made once at a time, whoever dies at whatever moment."""

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_plane.bootstrap import open_ports
from control_plane.catalog import catalog_life
from control_plane.config import Settings
from control_plane.domain.catalog_backups import CATALOG_PREFIX, StoredCatalog
from control_plane.domain.errors import Conflict
from control_plane.services import catalog_backups
from control_plane.services.backups import require_store
from control_plane.services.ports import Ports
from deploy.local.stack import Stack
from tests.conftest import Cli
from tests.driver import Driver
from tests.integration.catalog_life.lost import machine_of
from tests.unit.dying_stores import DyingStore, Killed

NEVER = dt.timedelta(days=1)
AT_ONCE = dt.timedelta(0)


@pytest.fixture
async def ports(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ports]:
    for name in [name for name in os.environ if name.startswith("TENANTRY_")]:
        monkeypatch.delenv(name)
    for name, value in stack.facts()["environment"].items():
        monkeypatch.setenv(name, value)
    async with open_ports(Settings.from_environment()) as opened:
        yield opened


def on(ports: Ports, directory: Path, *, lives: int, after: bool = False) -> Ports:
    store = DyingStore(directory, lives=lives, after=after)
    return msgspec.structs.replace(ports, store=store)


def stored(ports: Ports) -> list[StoredCatalog]:
    return catalog_backups.every(require_store(ports))


@pytest.mark.parametrize("after", [False, True])
async def test_who_dies_around_the_manifest_leaves_a_backup_or_none(
    ports: Ports, tmp_path: Path, *, after: bool
) -> None:
    dying = on(ports, tmp_path, lives=0, after=after)
    with pytest.raises(Killed):
        await catalog_backups.back_up(dying)
    whole = on(ports, tmp_path, lives=9)
    assert len(stored(whole)) == after
    made = await catalog_backups.back_up(whole)
    newest = stored(whole)[0]
    assert newest.id == made.backup_id


async def test_two_at_once_are_one(ports: Ports, tmp_path: Path) -> None:
    mine = on(ports, tmp_path, lives=9)
    async with ports.catalog.transaction() as db:
        assert await catalog_life.try_to_back_up(db)
        with pytest.raises(Conflict, match="somebody else"):
            await catalog_backups.back_up(mine)
        await catalog_backups.back_up_if_due(mine, AT_ONCE)
    assert stored(mine) == []
    await asyncio.gather(*(catalog_backups.back_up_if_due(mine, AT_ONCE) for _ in range(4)))
    assert len(stored(mine)) >= 1
    before = stored(mine)
    await catalog_backups.back_up_if_due(mine, NEVER)
    assert stored(mine) == before


async def test_a_killed_command_leaves_no_lock(stack: Stack, catalog: Any) -> None:
    machine = machine_of(stack)
    running = subprocess.Popen(
        [str(Path(sys.executable).with_name("tenantry")), "admin", "catalog", "backup"],
        env={"PATH": "/usr/bin:/bin", **machine.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1"
    lock = catalog_life._BACKUP_LOCK
    while not await catalog.fetchval(held, lock):
        assert running.poll() is None, "it ended before it was killed"
        await asyncio.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    while await catalog.fetchval(held, lock):
        await asyncio.sleep(0.05)
    made = await asyncio.to_thread(machine.json, "admin", "catalog", "backup")
    listed = await asyncio.to_thread(machine.json, "admin", "catalog", "list")
    assert listed[0]["id"] == made["id"]
    assert {one["problem"] for one in listed} == {None}


async def test_nothing_of_it_is_readable_in_the_store(ports: Ports, tmp_path: Path) -> None:
    """S-40: neither the archive nor what is said of it."""
    await catalog_backups.back_up(on(ports, tmp_path, lives=9))
    stored = b"".join(
        path.read_bytes() for path in (tmp_path / CATALOG_PREFIX).rglob("*") if path.is_file()
    )
    assert len(stored) > 1000
    for word in (b"PGDMP", b"tenants", b"audit_events", b"SCRAM-SHA-256"):
        assert word not in stored


async def test_what_is_too_old_goes_and_the_rest_stays(ports: Ports, tmp_path: Path) -> None:
    mine = on(ports, tmp_path, lives=99)
    made = [await catalog_backups.back_up(mine) for _ in range(3)]
    for manifest, days in zip(made, (100, 90, 0), strict=True):
        for path in (tmp_path / CATALOG_PREFIX / manifest.backup_id.hex).iterdir():
            at = path.stat().st_mtime - days * 86_400
            os.utime(path, (at, at))
    for after in (False, True):
        with pytest.raises(Killed):
            await catalog_backups.prune(on(ports, tmp_path, lives=0, after=after))
    await catalog_backups.prune(mine)
    (left,) = stored(mine)
    assert left.id == made[2].backup_id
    assert {path.name for path in (tmp_path / CATALOG_PREFIX).rglob("*") if path.is_file()} == {
        "data",
        "manifest",
    }


async def test_beat_makes_one_and_everybody_says_how_old_it_is(
    driver: Driver, cli: Cli, catalog: Any
) -> None:
    async with asyncio.timeout(120):
        while not await catalog.fetchval("SELECT count(*) FROM catalog_backups"):
            await asyncio.sleep(0.5)
    said = cli("doctor")
    assert "ok - catalog backup: the newest was made" in said.stdout
    metrics = (await driver.api.get("/metrics")).text
    assert "tenantry_catalog_backup_seconds" in metrics
    await driver.assert_clean()
