"""Loading a backup into its scratch database, by a login that may do nothing else.

The archive is decrypted into the stdin of ``pg_restore`` and is on no disk. What comes before and
after the data needs the head of the archive only, which is in a file in memory.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from io import FileIO
from itertools import chain
from pathlib import Path

import msgspec

from control_plane.adapters import pg_programs, restore_passes, restore_preflight
from control_plane.adapters.archive_toc import Contents, read_contents
from control_plane.adapters.backup_object import plain
from control_plane.adapters.data_shares import Share, shares
from control_plane.adapters.pg_programs import LibpqSession, file_path, memory_file
from control_plane.adapters.postgres_server import (
    Connection,
    ServerAddress,
    connect,
    translated,
)
from control_plane.adapters.restore_passes import Passes
from control_plane.adapters.scratch_database import heirs
from control_plane.adapters.side_by_side import side_by_side
from control_plane.domain.backups import Manifest
from control_plane.domain.errors import ServerUnsuitable
from control_plane.domain.names import RoleSet

_SHOWN_OBSTACLES = 20
_TOLD_BYTES = 16 * 1024 * 1024
_ARGUMENTS = (f"--dbname={pg_programs.CONNECTION}", "--exit-on-error", "--no-tablespaces")
# A table of a terabyte is not looked at for hours: samples have a fixed size.
_ANALYZE_SECONDS = 3600

_SCHEMAS = "SELECT nspname FROM pg_namespace"
_GIVE_SCHEMA = "SELECT format('ALTER SCHEMA %I OWNER TO %I', $1::text, $2::text)"
# See scratch_database: what those who were made owners were lent.
_TAKE_BACK = """
SELECT format('REVOKE CREATE ON SCHEMA %I FROM %s', nspname,
              (SELECT string_agg(quote_ident(heir), ', ') FROM unnest($1::text[]) AS heir
                WHERE heir <> pg_get_userbyid(nspowner)))
  FROM pg_namespace
 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
   AND pg_has_role(nspowner, 'USAGE')
"""
_ANALYZED = """
SELECT oid::regclass::text FROM pg_class
 WHERE relkind IN ('r', 'p', 'm') AND NOT relispartition AND oid >= 16384
   AND pg_has_role(relowner, 'USAGE')
 ORDER BY oid
"""

Told = Callable[[str], None]


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """One backup, proven and still encrypted in ``spool``, and the database it is loaded into.

    ``address`` has the login of the loader, ``program`` is the ``pg_restore`` of the server's
    major version, ``jobs`` tables or indexes are loaded or made at a time.
    """

    spool: Path
    manifest: Manifest
    key: bytes
    address: ServerAddress
    database: str
    session_name: str
    program: Path
    jobs: int = 2


async def load_archive(job: LoadJob, told: Told) -> list[str]:
    """Load everything; ``told`` hears, from any thread, how far it is.

    The database is as ``furnish_scratch`` left it; after an error it is thrown away. Returned is
    what only an administrator can do in it: statements for ``dismiss_loader``.

    Raises:
        BackupCorrupt: what is in the spool is not the archive; known perhaps only at its end.
        ServerUnsuitable: the archive holds what no tenant's login may restore.
        DiskFull: the server has no room.
        ServerUnavailable: the server went away.
        DumpFailed: ``pg_restore`` failed; the message carries its last words.
    """
    archive = plain(job.spool, job.manifest, job.key)
    contents, taken = await asyncio.to_thread(read_contents, archive)
    _require_no_obstacles(contents, job.manifest)
    roles = RoleSet(job.manifest.roles_key)
    async with _as_loader(job) as connection:
        plan = await _begin(connection, contents, roles)
    rows = {name: table.rows for name, table in job.manifest.content.tables.items()}
    with pg_programs.libpq(job.address, job.database, job.session_name) as session:
        restores = _Restores(job, session, contents.head)
        await restores.from_head(plan.before)
        parts = shares(contents, plan, rows, job.jobs)
        await restores.load(parts, chain(taken, archive), told)
        async with _as_loader(job) as connection:
            await _take_back(connection, roles)
        told("indexes, constraints and privileges")
        made = {number for part in parts for number in part.indexes}
        await restores.finish([number for number in plan.after if number not in made])
    told("statistics")
    async with _as_loader(job) as connection:
        await _analyze(connection)
    return plan.statements


def _require_no_obstacles(contents: Contents, manifest: Manifest) -> None:
    if obstacles := restore_preflight.archive_obstacles(contents, manifest):
        shown = "; ".join(obstacles[:_SHOWN_OBSTACLES])
        left = len(obstacles) - _SHOWN_OBSTACLES
        more = f" and {left} more" if left > 0 else ""
        raise ServerUnsuitable(f"the backup cannot be restored: {shown}{more}")


@asynccontextmanager
async def _as_loader(job: LoadJob) -> AsyncIterator[Connection]:
    # Whatever was loaded could have set a role for whoever enters the database.
    settings = {"statement_timeout": "0", "role": "none"}
    connection = await connect(job.address, job.database, job.session_name, settings=settings)
    try:
        with translated():
            yield connection
    finally:
        connection.terminate()


async def _begin(connection: Connection, contents: Contents, roles: RoleSet) -> Passes:
    existing = {row[0] for row in await connection.fetch(_SCHEMAS)}
    plan = restore_passes.passes(contents, existing, roles)
    for schema, owner in plan.schemas.items():
        await connection.execute(await connection.fetchval(_GIVE_SCHEMA, schema, owner))
    return plan


async def _take_back(connection: Connection, roles: RoleSet) -> None:
    for row in await connection.fetch(_TAKE_BACK, list(heirs(roles).values())):
        await connection.execute(row[0])


async def _analyze(connection: Connection) -> None:
    for row in await connection.fetch(_ANALYZED):
        await connection.execute(f"ANALYZE {row[0]}", timeout=_ANALYZE_SECONDS)


class _Restores:
    """Runs of ``pg_restore`` for one job."""

    def __init__(self, job: LoadJob, session: LibpqSession, head: bytes) -> None:
        self._job = job
        self._session = session
        self._head = head

    async def from_head(self, numbers: Sequence[int], options: Sequence[str] = ()) -> None:
        """Restore what needs none of the data."""
        if not numbers:
            return
        with memory_file(_list(numbers)) as wanted, memory_file(self._head) as archive:
            arguments = (*_ARGUMENTS, *options, _use_list(wanted), file_path(archive))
            async with pg_programs.running(
                self._job.program, arguments, self._session, files=[wanted, archive]
            ) as restore:
                await restore.finished()

    async def finish(self, numbers: Sequence[int]) -> None:
        """Restore what comes after the data."""
        # A materialized view over tables whose owner is bound by policies is filled as it was.
        await self.from_head(numbers, (f"--jobs={self._job.jobs}", "--enable-row-security"))

    async def load(self, parts: Sequence[Share], archive: Iterator[bytes], told: Told) -> None:
        """Load the parts at the same time, each from the archive read once more."""
        job = self._job
        archives = [archive, *(plain(job.spool, job.manifest, job.key) for _ in parts[1:])]
        progress = _Progress(job.manifest.plain_bytes, len(parts), told)
        first, *others = (
            self._load_part(part, progress.counted(place, pieces), whole=place == 0)
            for place, (part, pieces) in enumerate(zip(parts, archives, strict=True))
        )
        await side_by_side(first, *others)

    async def _load_part(self, part: Share, archive: Iterator[bytes], *, whole: bool) -> None:
        await self._load_data(part.data, archive)
        # pg_restore reads no further than to the last thing it wants: one of us goes to the end.
        reading = asyncio.to_thread(_read_out, archive if whole else iter(()))
        await side_by_side(reading, self.from_head(part.indexes))

    async def _load_data(self, numbers: Sequence[int], archive: Iterator[bytes]) -> None:
        stop = threading.Event()
        feeding: asyncio.Task[None] | None = None
        with memory_file(_list(numbers)) as wanted, pg_programs.pipe() as (reading, writing):
            try:
                async with pg_programs.running(
                    self._job.program,
                    (*_ARGUMENTS, _use_list(wanted)),
                    self._session,
                    stdin=reading.fileno(),
                    files=[wanted],
                ) as restore:
                    reading.close()
                    feeding = asyncio.create_task(asyncio.to_thread(feed, writing, archive, stop))
                    await asyncio.shield(feeding)
                    await restore.finished()
            finally:
                # The program is gone, so nothing that is written waits any longer.
                stop.set()
                if feeding is not None:
                    await asyncio.wait({feeding})


class _Progress:
    """How far the load is: as far as the part that has come the least."""

    def __init__(self, total: int, parts: int, told: Told) -> None:
        self._total = total
        self._sizes = [0] * parts
        self._told = told
        self._next = _TOLD_BYTES

    def counted(self, part: int, archive: Iterator[bytes]) -> Iterator[bytes]:
        """The same bytes, counted once they were taken."""
        for piece in archive:
            yield piece
            self._sizes[part] += len(piece)
            if (size := min(self._sizes)) >= self._next:
                self._next = size + _TOLD_BYTES
                self._told(f"{size / 1e6:.0f} of {self._total / 1e6:.0f} MB loaded")


def _list(numbers: Iterable[int]) -> bytes:
    return "".join(f"{number};\n" for number in numbers).encode("ascii")


def _use_list(file: int) -> str:
    return f"--use-list={file_path(file)}"


def feed(writing: FileIO, pieces: Iterator[bytes], stop: threading.Event) -> None:
    """Write all there is, unless ``stop`` is set or nobody reads any more."""
    with writing, suppress(BrokenPipeError):
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[writing.write(view) :]
            if stop.is_set():
                return


def _read_out(archive: Iterator[bytes]) -> None:
    for _ in archive:
        pass
