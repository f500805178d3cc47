"""Restores that are cut short: nothing goes on behind our back, and the next one starts clean."""

import asyncio
import os
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.postgres_server import Connection
from control_plane.domain.backups import differences
from control_plane.domain.errors import (
    DiskFull,
    DumpFailed,
    ServerUnavailable,
    TenantryError,
)
from tests.integration.restores.restoring import (
    LOCK,
    Backup,
    Scratch,
    back_up,
    drop,
    load_into,
    scratch_for,
)
from tests.integration.tenant_server.clinic import Clinic, Place, provision

TABLE = """
CREATE TABLE public.{table} AS
SELECT n AS id, repeat(md5(n::text), 8) AS words FROM generate_series(1, 90000) AS n;
ALTER TABLE public.{table} ADD PRIMARY KEY (id);
"""
Told = Callable[[str], None]

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'advisory'
"""
BACKEND = """
SELECT pid FROM pg_stat_activity WHERE usename = $1 AND query LIKE 'COPY%' LIMIT 1
"""


def halfway(action: Callable[[], Coroutine[Any, Any, object]]) -> Told:
    """For ``told``: once, in the midst of the data, run ``action`` while the load waits."""
    loop = asyncio.get_running_loop()
    acted: list[bool] = []

    def told(_: str) -> None:
        if threading.current_thread() is not threading.main_thread() and not acted:
            acted.append(True)
            asyncio.run_coroutine_threadsafe(action(), loop).result(60)

    return told


def pg_restores() -> list[psutil.Process]:
    """Those that this process has started and that are still there, with their workers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        # Sessions of the servers come and go.
        with suppress(psutil.NoSuchProcess):
            if child.name() == "pg_restore":
                found.append(child)
    return found


@asynccontextmanager
async def administrator(place: Place, database: str = "postgres") -> AsyncIterator[Connection]:
    connection = await place.server.admin(database)
    try:
        yield connection
    finally:
        connection.terminate()


async def until(place: Place, query: str, scratch: Scratch, wanted: int) -> None:
    """Wait for the sessions of the loader; the test's own timeout is the limit."""
    async with administrator(place) as admin:
        while await admin.fetchval(query, scratch.loader) != wanted:
            await admin.execute("SELECT pg_sleep(0.05)")


async def prove_clean(scratch: Scratch) -> None:
    """Nobody works for the load any more, and another one succeeds."""
    assert pg_restores() == []
    await until(scratch.place, SESSIONS, scratch, 0)
    await load_into(scratch)
    assert differences(scratch.backup.manifest.content, await scratch.content()) == []
    await drop(scratch)


@pytest.fixture
def scratch(place: Place, sizeable: dict[int, Backup], tmp_path: Path) -> Scratch:
    return scratch_for(sizeable[place.server.version], place, tmp_path)


async def test_cancelled_while_data_is_loaded(scratch: Scratch) -> None:
    async def cancel() -> None:
        assert len(pg_restores()) == 1
        loading.cancel()

    loading = asyncio.create_task(load_into(scratch, halfway(cancel)))
    with pytest.raises(asyncio.CancelledError):
        await loading
    await prove_clean(scratch)


@pytest.fixture
async def twofold(places: dict[int, Place], store: FileStore, tmp_path: Path) -> Scratch:
    """A restore of two tables that are loaded at the same time."""
    clinic = await provision(places[18])
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}")
        for table in ("one", "two"):
            await inside.execute(TABLE.format(table=table))
    return scratch_for(await back_up(clinic, store), places[18], tmp_path)


async def test_cancelled_while_several_tables_are_loaded(twofold: Scratch) -> None:
    async def cancel() -> None:
        assert len(pg_restores()) == 2
        loading.cancel()

    loading = asyncio.create_task(load_into(twofold, halfway(cancel)))
    with pytest.raises(asyncio.CancelledError):
        await loading
    await prove_clean(twofold)


async def test_one_of_several_is_killed(twofold: Scratch) -> None:
    async def kill() -> None:
        pg_restores()[1].kill()

    with pytest.raises(DumpFailed, match="pg_restore was ended by signal 9"):
        await load_into(twofold, halfway(kill))
    await prove_clean(twofold)


@asynccontextmanager
async def held_up(scratch: Scratch) -> AsyncIterator[asyncio.Task[None]]:
    """A load that cannot get on with an index as long as the block lasts."""
    held: list[Connection] = []

    async def hold() -> None:
        held.append(await scratch.place.server.admin(scratch.database))
        await held[0].execute("SELECT pg_advisory_lock($1)", LOCK)

    loading = asyncio.create_task(load_into(scratch, halfway(hold)))
    try:
        await until(scratch.place, WAITING, scratch, 1)
        yield loading
    finally:
        held[0].terminate()


async def test_cancelled_while_indexes_are_made(scratch: Scratch) -> None:
    async with held_up(scratch) as loading:
        # The program, and one that it has started for each job.
        assert len(pg_restores()) == 3
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert pg_restores() == []
        # The statement is ended although what it waits for does not come.
        await until(scratch.place, SESSIONS, scratch, 0)
    await prove_clean(scratch)


async def test_killed_while_data_is_loaded(scratch: Scratch) -> None:
    async def kill() -> None:
        (program,) = pg_restores()
        program.kill()

    with pytest.raises(DumpFailed, match="pg_restore was ended by signal 9"):
        await load_into(scratch, halfway(kill))
    await prove_clean(scratch)


async def test_killed_while_indexes_are_made(scratch: Scratch) -> None:
    async with held_up(scratch) as loading:
        program, *workers = pg_restores()
        program.kill()
        with pytest.raises(DumpFailed, match="pg_restore was ended by signal 9"):
            await loading
        assert psutil.wait_procs(workers, timeout=10)[1] == []
    await prove_clean(scratch)


async def test_a_server_that_crashes_is_away(scratch: Scratch) -> None:
    """One process of it is killed, and Postgres starts over: every session is gone."""

    async def crash() -> None:
        async with administrator(scratch.place) as admin:
            os.kill(await admin.fetchval(BACKEND, scratch.loader), signal.SIGKILL)

    with pytest.raises(ServerUnavailable):
        await load_into(scratch, halfway(crash))
    await answering(scratch.place)
    await prove_clean(scratch)


async def answering(place: Place) -> None:
    """Wait until the server lets people in again; the test's own timeout is the limit."""
    while True:
        try:
            async with administrator(place):
                return
        except ServerUnavailable:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def small_disk(place: Place, megabytes: int) -> AsyncIterator[Path]:
    """What is made in the databases of the server meanwhile goes where there is little room."""
    folder = Path(tempfile.mkdtemp(prefix="tenantry-disk-"))
    options = f"size={megabytes}m,uid=postgres,mode=0700"
    await ran("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        async with administrator(place) as admin:
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


async def ran(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("stage", ["loaded", "privileges"])
async def test_a_full_disk_is_said_and_harms_nobody(
    scratch: Scratch, filled: dict[int, Clinic], stage: str
) -> None:
    heard: list[str] = []
    async with small_disk(scratch.place, 80) as disk:

        def told(words: str) -> None:
            heard.append(words)
            if words.endswith(stage):
                with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                    while filler.write(bytes(65536)):
                        pass

        with pytest.raises(DiskFull, match="No space left on device"):
            await load_into(scratch, told)
        assert heard[-1].endswith(stage)
        assert await drop(scratch)
        # Those who are served go on.
        app = await filled[scratch.place.server.version].app()
        assert await app.fetchval("SELECT count(*) FROM public.city") == 0
        await app.close()
    await prove_clean(scratch)


async def test_a_worker_that_was_overtaken_changes_nothing(scratch: Scratch) -> None:
    """Frozen past its lease, it wakes when another one has loaded the same database."""

    async def overtake() -> None:
        await load_into(scratch)

    with pytest.raises(TenantryError):
        await load_into(scratch, halfway(overtake))
    assert differences(scratch.backup.manifest.content, await scratch.content()) == []
    await prove_clean(scratch)
