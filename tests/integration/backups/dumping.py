"""Clinics that are worth a backup, their dumps, and what comes out of them again."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import zstandard

from control_plane.adapters import scram
from control_plane.adapters.backup_format import open_stream
from control_plane.adapters.backup_login import close_backup_login, open_backup_login
from control_plane.adapters.database_content import read_content
from control_plane.adapters.dump import Dumped, DumpJob, DumpProgress, dump_to_store
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.postgres_server import Connection, ServerAddress
from control_plane.domain.backups import Content, object_key
from tests.integration.tenant_server.clinic import Clinic, Place, provision

EVERYTHING = Path(__file__).with_name("everything.sql")
SESSION = "cp:dumptest:1"
KEY = b"a key of thirty-two bytes, or so"
# So much that no dump is over before somebody can interfere: pipes and buffers hold 2 MiB.
_MANY_ROWS = """
CREATE TABLE public.note (id integer PRIMARY KEY, words text, at timestamptz DEFAULT now());
INSERT INTO public.note (id, words)
SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 40000) AS i;
"""


async def filled_clinic(place: Place) -> Clinic:
    """A clinic that holds one of everything."""
    clinic = await provision(place)
    async with clinic.inside() as inside:
        await inside.execute("CREATE EXTENSION citext SCHEMA public")
        await inside.execute("CREATE EXTENSION hstore SCHEMA public")
        await inside.execute(f"SET ROLE {clinic.roles.owner}")
        await inside.execute(EVERYTHING.read_text())
        await inside.execute(_MANY_ROWS)
    return clinic


@asynccontextmanager
async def as_owner(clinic: Clinic) -> AsyncIterator[Connection]:
    """What its migrations are, inside the clinic."""
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}")
        yield inside


@asynccontextmanager
async def undone(connection: Connection) -> AsyncIterator[None]:
    """A transaction of which nothing stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def halfway(action: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[DumpProgress], None]:
    """For ``told``: once, when the archive has begun to come, run ``action`` and wait for it.

    Meanwhile nobody reads from ``pg_dump``, so that it cannot get to its end.
    """
    loop = asyncio.get_running_loop()
    acted: list[bool] = []

    def told(progress: DumpProgress) -> None:
        in_the_pump = threading.current_thread() is not threading.main_thread()
        if in_the_pump and progress.archive_bytes and not acted:
            acted.append(True)
            asyncio.run_coroutine_threadsafe(action(), loop).result(60)

    return told


def pg_dumps() -> list[psutil.Process]:
    """Those that this process has started and that are still there."""
    return [child for child in psutil.Process().children() if child.name() == "pg_dump"]


@asynccontextmanager
async def as_backup(clinic: Clinic) -> AsyncIterator[ServerAddress]:
    """The address for the clinic's backup login, while it is open."""
    admin = await clinic.place.server.admin()
    try:
        password = await open_backup_login(admin, clinic.roles)
        yield clinic.place.server.address().for_login(clinic.roles.backup, password)
    finally:
        await close_backup_login(admin, clinic.roles)
        await admin.close()


async def content_of(clinic: Clinic) -> Content:
    """What the clinic holds now."""
    async with as_backup(clinic) as address:
        return await read_content(address, clinic.database, SESSION)


def job_for(clinic: Clinic, address: ServerAddress, store: FileStore) -> DumpJob:
    backup_id, tenant_id = uuid4(), clinic.roles.key
    return DumpJob(
        address=address,
        database=clinic.database,
        session_name=SESSION,
        program=Programs([clinic.place.server.bin]).dump(clinic.place.server.version),
        store=store,
        object_key=object_key(tenant_id, backup_id, 1),
        backup_id=backup_id,
        tenant_id=tenant_id,
        key_version=1,
        key=KEY,
    )


async def dumped(
    clinic: Clinic, store: FileStore, told: Callable[[DumpProgress], None] = lambda _: None
) -> tuple[Dumped, bytes]:
    """A dump of the clinic, and the archive that is in the object."""
    async with as_backup(clinic) as address:
        job = job_for(clinic, address, store)
        result = await dump_to_store(job, told)
    return result, await asyncio.to_thread(archive_of, job, result)


def archive_of(job: DumpJob, result: Dumped) -> bytes:
    """What ``pg_dump`` wrote, out of the object, every byte accounted for."""
    stored = b"".join(job.store.read(job.object_key, result.stored_bytes))
    assert hashlib.sha256(stored).digest() == result.object_sha256
    opened = open_stream(
        iter([stored]), backup_id=job.backup_id, tenant_id=job.tenant_id, key=job.key
    )
    archive = zstandard.ZstdDecompressor().decompressobj().decompress(b"".join(opened))
    assert len(archive) == result.plain_bytes
    assert archive.startswith(b"PGDMP")
    return archive


@asynccontextmanager
async def restored(archive: bytes, place: Place) -> AsyncIterator[Content]:
    """What a database holds into which an administrator has restored the archive."""
    name, reader, password = f"plain_{uuid4().hex}", f"t_{uuid4().hex}", scram.new_password()
    admin = await place.server.admin()
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        await admin.execute(
            f"CREATE ROLE {reader} BYPASSRLS LOGIN PASSWORD '{password.reveal()}' "
            f"IN ROLE pg_read_all_data; ALTER ROLE {reader} SET lo_compat_privileges = on"
        )
        await _restore(archive, place, name)
        address = place.server.address().for_login(reader, password)
        yield await read_content(address, name, SESSION, at_once=3)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE {reader}")
        await admin.close()


async def _restore(archive: bytes, place: Place, name: str) -> None:
    server = place.server
    process = await asyncio.create_subprocess_exec(
        str(server.bin / "pg_restore"),
        *("--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={name}"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": server.address().user,
            "PGPASSWORD": server.password.reveal(),
        },
    )
    _, err = await process.communicate(archive)
    assert process.returncode == 0, err.decode()
