"""One backup's data: everything in a tenant's database at one instant, sealed, in the store.

Nothing plain is on a disk. ``pg_dump`` and the sessions that read the content see the same
snapshot, at the same time.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from control_plane.adapters import pg_programs
from control_plane.adapters.archive_stream import ArchiveStream
from control_plane.adapters.backup_format import Sealer
from control_plane.adapters.database_content import read_content
from control_plane.adapters.database_snapshot import frozen, read_sequences
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.adapters.postgres_server import Connection, ServerAddress, translated
from control_plane.adapters.side_by_side import side_by_side
from control_plane.domain.backups import Content, Extension, Locale

_ARGUMENTS = (
    f"--dbname={pg_programs.CONNECTION}",
    "--format=custom",
    "--compress=0",
    "--exclude-schema=cp_meta",
    "--no-publications",
    "--no-subscriptions",
    # A newer server may have more reserved words.
    "--quote-all-identifiers",
    # Whoever changes a table waits for the dump, and others for him: the dump gives up first.
    "--lock-wait-timeout=30s",
    "--no-password",
)
# How long a transfer that is not wanted any more may take to notice.
_PATIENCE_SECONDS = 5.0

# to_jsonb(d): the names of the locale's columns differ between major versions.
_FACTS = """
SELECT now() AS snapshot_at, pg_database_size(d.oid) AS database_bytes,
       current_setting('server_version_num')::integer AS server_version,
       pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
       d.datlocprovider::text AS provider,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS icu_locale,
       d.datcollversion AS version
  FROM pg_database d
 WHERE d.datname = current_database()
"""
_EXTENSIONS = """
SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 ORDER BY e.extname
"""


class DumpJob(msgspec.Struct, frozen=True, kw_only=True):
    """One dump and where it goes.

    ``address`` has the login of the tenant's backup role, ``program`` is the ``pg_dump`` of the
    server's own major version. ``key`` is version ``key_version`` of the tenant's key.
    """

    address: ServerAddress
    database: str
    session_name: str
    program: Path
    store: ObjectStore
    object_key: str
    backup_id: UUID
    tenant_id: UUID
    key_version: int
    key: bytes


class DumpProgress(msgspec.Struct, frozen=True):
    """How far a dump is: bytes of the archive so far, and what was said of the content."""

    archive_bytes: int
    content: str

    @property
    def words(self) -> str:
        dumped = f"{self.archive_bytes / 1e6:.0f} MB dumped"
        return f"{dumped}, {self.content}" if self.content else dumped


class Dumped(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says about the data; see there."""

    stored_bytes: int
    object_sha256: bytes
    plain_bytes: int
    content: Content
    locale: Locale
    extensions: list[Extension]
    snapshot_at: dt.datetime
    database_bytes: int
    server_version: int
    dump_program: str


async def dump_to_store(job: DumpJob, told: Callable[[DumpProgress], None]) -> Dumped:
    """Dump the database into the object, and count what is in it; ``told`` hears from any thread.

    The object exists when this returns. After an error or a cancellation it does not, or only if
    the store had just made it.

    Raises:
        ServerUnavailable: the server does not answer or went away.
        ServerRefused: the backup login is closed.
        ObjectInUse: a lock was not given, because somebody changes the schema.
        DumpFailed: ``pg_dump`` failed, or the login may not read something.
        StoreUnavailable, StoreRefused: the store does not take the object.
    """
    async with frozen(job.address, job.database, job.session_name) as snapshot:
        # Before pg_dump reads them: what is restored has then never fallen behind.
        sequences = await read_sequences(snapshot)
        facts = await _facts(snapshot.connection)
        progress = _Progress(told)
        async with _uploaded(job, progress) as (stream, sealer):
            content = await side_by_side(
                read_content(
                    job.address,
                    job.database,
                    job.session_name,
                    snapshot=snapshot.name,
                    told=progress.read,
                ),
                _dump(job, snapshot.name, stream),
            )
    return Dumped(
        stored_bytes=sealer.stored_bytes,
        object_sha256=sealer.sha256,
        plain_bytes=stream.plain_bytes,
        content=msgspec.structs.replace(content, sequences=sequences),
        dump_program=pg_programs.version(job.program),
        **facts,
    )


class _Progress:
    """Puts together what two threads of work say."""

    def __init__(self, told: Callable[[DumpProgress], None]) -> None:
        self._told = told
        self._bytes = 0
        self._content = ""

    def dumped(self, size: int) -> None:
        self._bytes = size
        self._told(DumpProgress(size, self._content))

    def read(self, words: str) -> None:
        self._content = words
        self._told(DumpProgress(self._bytes, words))


async def _facts(connection: Connection) -> dict[str, Any]:
    with translated():
        found = await connection.fetchrow(_FACTS)
        extensions = await connection.fetch(_EXTENSIONS)
    if found is None:
        raise TypeError("a session is in a database")
    facts = dict(found)
    return {
        "locale": Locale(**{name: facts.pop(name) for name in Locale.__struct_fields__}),
        "extensions": [Extension(**row) for row in extensions],
        **facts,
    }


@asynccontextmanager
async def _uploaded(
    job: DumpJob, progress: _Progress
) -> AsyncIterator[tuple[ArchiveStream, Sealer]]:
    """The object, made to exist at the end of the block; after an error nothing of it stays."""
    sealer = Sealer(
        backup_id=job.backup_id,
        tenant_id=job.tenant_id,
        key_version=job.key_version,
        key=job.key,
    )
    upload = await asyncio.to_thread(job.store.upload, job.object_key)
    try:
        stream = ArchiveStream(sealer, upload, progress.dumped)
        yield stream, sealer
        async with _thread(stream.finish) as finishing:
            await finishing
    except BaseException:
        await asyncio.to_thread(upload.abort)
        raise


async def _dump(job: DumpJob, snapshot: str, stream: ArchiveStream) -> None:
    arguments = [*_ARGUMENTS, f"--snapshot={snapshot}"]
    with (
        pg_programs.libpq(job.address, job.database, job.session_name) as session,
        pg_programs.pipe() as (reading, writing),
    ):
        async with _thread(lambda: stream.pump(reading), stream.stop) as pumping:
            # When the program is gone and this end is closed, what reads comes to its end.
            with writing:
                async with pg_programs.running(
                    job.program, arguments, session, stdout=writing.fileno()
                ) as program:
                    writing.close()
                    await pumping
                    await program.finished()


@asynccontextmanager
async def _thread(
    work: Callable[[], None], stop: Callable[[], None] | None = None
) -> AsyncIterator[asyncio.Future[None]]:
    """Run ``work`` in a thread. The block does not end before it, unless it is stuck."""
    running = asyncio.create_task(asyncio.to_thread(work))
    try:
        yield asyncio.shield(running)
    finally:
        if stop is not None:
            stop()
        await asyncio.wait({running}, timeout=_PATIENCE_SECONDS)
