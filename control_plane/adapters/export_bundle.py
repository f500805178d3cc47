"""A bundle for a customer: a zip file, encrypted to the customer's key, on its way to the store.

One thread pulls: it asks for the next file of the zip, encrypts, uploads. What it asks for is made
by tasks on the event loop, which write into a pipe. Nothing plain is ever on disk, and nothing is
in memory but a few pieces.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from control_plane.adapters import clock, pg_programs, signatures
from control_plane.adapters.age_encryption import Recipient
from control_plane.adapters.database_snapshot import Snapshot, frozen
from control_plane.adapters.export_documents import README, markdown
from control_plane.adapters.export_tables import Described, Table, copy_csv, describe
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.adapters.pg_programs import LibpqSession
from control_plane.adapters.postgres_server import ServerAddress
from control_plane.adapters.signatures import Signer
from control_plane.adapters.zip_stream import Member, zipped
from control_plane.domain.errors import BackupCorrupt, ObjectMissing, StoreUnavailable

FORMAT = 1
_PIECE_BYTES = 256 * 1024
_MAJOR = 10_000
# As in a backup: cp_meta is ours. Neither owners nor rights: our roles mean nothing elsewhere.
_DUMP = (
    "--exclude-schema=cp_meta",
    "--no-owner",
    "--no-privileges",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
    "--lock-wait-timeout=60s",
    f"--dbname={pg_programs.CONNECTION}",
)


Make = Callable[[BinaryIO], Coroutine[Any, Any, None]]


class About(msgspec.Struct, frozen=True):
    """What the manifest says of the export and of whose data it is."""

    export: str
    tenant: str
    slug: str
    name: str
    template: str
    schema_revision: str
    server_version: int


class ExportJob(msgspec.Struct, frozen=True):
    """One bundle: ``address`` is that of the backup login, ``program`` the server's ``pg_dump``."""

    address: ServerAddress
    database: str
    session_name: str
    program: Path
    store: ObjectStore
    object_key: str
    recipient: Recipient
    signer: Signer
    about: About


class Bundled(msgspec.Struct, frozen=True):
    """The object as it was sent."""

    stored_bytes: int
    sha256: bytes
    tables: int
    rows: int


class _File(msgspec.Struct):
    """A file of the zip as the manifest lists it; filled in while it passes."""

    path: str
    bytes: int = 0
    sha256: str = ""


async def write_bundle(job: ExportJob, told: Callable[[str], None]) -> Bundled:
    """Make the bundle and upload it; ``told`` hears, from any thread, how far it is.

    Cancelling this ends the upload, and leaves nothing of it in the store.

    Raises:
        ServerUnavailable, ServerRefused, ObjectInUse, DumpFailed: the database could not be read.
        StoreUnavailable, StoreRefused: the object could not be stored.
    """
    async with frozen(job.address, job.database, job.session_name) as snapshot:
        described = await describe(snapshot)
        with pg_programs.libpq(job.address, job.database, job.session_name) as session:
            return await _Bundle(job, snapshot, described, session, told).write()


def require_stored(store: ObjectStore, key: str, bundled: Bundled) -> None:
    """Read the object back from end to end. Blocks.

    Raises:
        ObjectMissing: it is not there.
        BackupCorrupt: it is not what was sent.
        StoreUnavailable: the store failed.
    """
    found = store.head(key)
    if found is None:
        raise ObjectMissing(f"the bundle {key} is not in the store {store.url}")
    digest = hashlib.sha256()
    if found.size == bundled.stored_bytes:
        for piece in store.read(key, bundled.stored_bytes):
            digest.update(piece)
    if digest.digest() != bundled.sha256:
        raise BackupCorrupt("the bundle in the store is not the one that was sent; export again")


class _Bundle:
    """One bundle being made."""

    def __init__(
        self,
        job: ExportJob,
        snapshot: Snapshot,
        described: Described,
        session: LibpqSession,
        told: Callable[[str], None],
    ) -> None:
        self._job = job
        self._snapshot = snapshot
        self._described = described
        self._session = session
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._making: set[asyncio.Task[Any]] = set()
        self._files: list[_File] = []
        self._rows: dict[str, int] = {}

    async def write(self) -> Bundled:
        """Let the thread pull until the object is stored."""
        pulling = asyncio.create_task(asyncio.to_thread(self._pull))
        try:
            return await asyncio.shield(pulling)
        finally:
            self._stop.set()
            for task in self._making:
                task.cancel()
            await asyncio.wait({pulling, *self._making})

    def _pull(self) -> Bundled:
        """The zip, encrypted, into the store."""
        job, digest, size = self._job, hashlib.sha256(), 0
        upload = job.store.upload(job.object_key)

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            digest.update(data)
            upload.write(data)

        pieces = zipped(self._members(), clock.now())
        try:
            job.recipient.encrypt(self._watched(pieces), take)
            upload.finish()
        except BaseException:
            upload.abort()
            raise
        finally:
            pieces.close()
        rows = sum(self._rows.values())
        return Bundled(size, digest.digest(), len(self._described.tables), rows)

    def _watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._stop.is_set():
                raise StoreUnavailable("the export was stopped")
            yield piece

    def _members(self) -> Iterator[Member]:
        yield self._text("README.txt", self._readme())
        yield self._made("schema.sql", partial(self._dump, ("--schema-only",)))
        # pg_dump connects while the password of the login is fresh; the snapshot waits for us.
        custom = ("--format=custom", "--compress=1")
        yield self._made("database.dump", partial(self._dump, custom), packed=True)
        for number, table in enumerate(self._described.tables, start=1):
            self._told(f"table {number} of {len(self._described.tables)}")
            yield self._made(table.file, partial(self._copy, table))
        title = f"The database of {self._job.about.name}"
        yield self._text("schema.md", markdown(title, self._described.tables, self._rows))
        manifest = msgspec.json.format(msgspec.json.encode(self._manifest()))
        yield Member("manifest.json", [manifest])
        yield Member("manifest.sig", [self._job.signer.sign(manifest)])
        yield Member("signing-key.pem", [signatures.pem(self._job.signer.public_key)])

    def _readme(self) -> str:
        about = self._job.about
        return README.format(
            name=about.name,
            slug=about.slug,
            at=f"{self._described.at:%Y-%m-%d %H:%M:%S} UTC",
            fingerprint=signatures.fingerprint(self._job.signer.public_key),
            major=about.server_version // _MAJOR,
        )

    def _manifest(self) -> dict[str, Any]:
        passed = {file.path: file for file in self._files}
        return {
            "format": FORMAT,
            **msgspec.to_builtins(self._job.about),
            "snapshot_at": self._described.at,
            "dump_program": pg_programs.version(self._job.program),
            "large_objects": self._described.large_objects,
            "tables": [
                {
                    "schema": table.schema,
                    "name": table.name,
                    "file": table.file,
                    "columns": [c.name for c in table.columns if not c.generated],
                    "generated_columns": [c.name for c in table.columns if c.generated],
                    "rows": self._rows[table.file],
                    "sha256": passed[table.file].sha256,
                }
                for table in self._described.tables
            ],
            "files": self._files,
        }

    def _text(self, name: str, text: str) -> Member:
        return Member(name, self._noted(name, iter([text.encode()])))

    def _made(self, name: str, make: Make, *, packed: bool = False) -> Member:
        return Member(name, self._noted(name, self._piped(make)), packed)

    def _noted(self, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        file, digest = _File(name), hashlib.sha256()
        for piece in pieces:
            file.bytes += len(piece)
            digest.update(piece)
            yield piece
        file.sha256 = digest.hexdigest()
        self._files.append(file)

    def _piped(self, make: Make) -> Iterator[bytes]:
        """What ``make`` writes into its end of a pipe, on the event loop; its error at the end."""
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb", buffering=0) as source:
            sink = os.fdopen(write_end, "wb", buffering=0)
            making = asyncio.run_coroutine_threadsafe(self._make(make, sink), self._loop)
            while piece := source.read(_PIECE_BYTES):
                yield piece
        making.result()

    async def _make(self, make: Make, sink: BinaryIO) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._making.add(task)
        with sink:
            if not self._stop.is_set():
                await make(sink)

    async def _dump(self, arguments: tuple[str, ...], sink: BinaryIO) -> None:
        job = self._job
        told = (*_DUMP, f"--snapshot={self._snapshot.name}", *arguments)
        async with pg_programs.running(
            job.program, told, self._session, stdout=sink.fileno()
        ) as dumping:
            sink.close()
            await dumping.finished()

    async def _copy(self, table: Table, sink: BinaryIO) -> None:
        self._rows[table.file] = await copy_csv(self._snapshot, table, sink)
