"""Postgres' own programs: found by major version, and started so that they leave nothing behind.

A program is told where to connect by its environment, and its password by a file in memory: its
arguments and its environment may be read by anybody on the machine, and hold no secret.
"""

import asyncio
import fcntl
import os
import re
import shutil
import signal
import subprocess
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec

from control_plane.adapters.postgres_server import ServerAddress
from control_plane.config import child_environment
from control_plane.domain.errors import (
    DiskFull,
    DumpFailed,
    ObjectInUse,
    ServerUnavailable,
    ServerUnsuitable,
    TenantryError,
)

_Name = Literal["pg_dump", "pg_restore", "pg_amcheck"]

# Debian and its kin keep every major version side by side.
_PACKAGED = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_VERSION_SECONDS = 20
_CONNECT_SECONDS = "10"
# What libpq before 16 is told instead of "system".
_AUTHORITIES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
# For ``--dbname``: a server that has vanished is noticed in about a minute, not in hours. The
# database is named in the environment.
CONNECTION = "keepalives_idle=30 keepalives_interval=10 keepalives_count=3 tcp_user_timeout=60000"

_PIPE_BYTES = 1024 * 1024
_KEPT_BYTES = 64 * 1024
_WORDS_LINES = 3
_WORDS_CHARACTERS = 300
# Errors, and what the server said to one; the lines between hold statements and rows.
_FROM_SERVER = "Error message from server: "
_WORD = re.compile(
    # Several jobs write at the same time, and may write into each other's lines.
    rf"(?:(?:(?:pg_\w+:\s*)+(?:error:\s+)+)+|pg_\w+: detail: (?={_FROM_SERVER})"
    r"|(?=could not execute query: ))(.+)"
)
# The few messages of Postgres that quote what is in a row: «… type integer: "x"», «value "x" …».
_VALUE = re.compile(r'(?<=: )".*|(?<=\bvalue )".*?"')

_MEANINGS: tuple[tuple[re.Pattern[str], type[TenantryError]], ...] = (
    # pg_dump gives LOCK TABLE a statement_timeout when it is told to wait so long and no longer.
    (re.compile(r"due to (lock|statement) timeout|deadlock detected"), ObjectInUse),
    (re.compile(r"No space left on device|Disk quota exceeded"), DiskFull),
    (
        re.compile(
            r"server closed the connection|terminating connection|connection has been closed"
            r"|could not receive data|could not send data|no connection to the server"
            r"|SYSCALL error|the database system is|too many clients|connection slots are reserved"
            r"|Connection refused|Connection reset|Connection timed out|timeout expired"
            r"|No route to host"
        ),
        ServerUnavailable,
    ),
)


class Programs:
    """Where the programs are: ``directories`` first, then the distribution's, then ``PATH``."""

    def __init__(self, directories: Iterable[Path] = ()) -> None:
        self._directories = tuple(directories)

    def dump(self, major: int) -> Path:
        """The ``pg_dump`` of this major version.

        Raises:
            ServerUnsuitable: it is not installed.
        """
        return self._find("pg_dump", major)

    def restore(self, major: int) -> Path:
        """The ``pg_restore`` of this major version, which reads archives of it and of older ones.

        Not a newer one: since 17 it makes settings that an older server does not have.

        Raises:
            ServerUnsuitable: it is not installed.
        """
        return self._find("pg_restore", major)

    def amcheck(self, major: int) -> Path:
        """The ``pg_amcheck`` of this major version.

        Raises:
            ServerUnsuitable: it is not installed.
        """
        return self._find("pg_amcheck", major)

    def _find(self, name: _Name, major: int) -> Path:
        for path in self._candidates(name):
            if _major(version(path)) == major:
                return path
        raise ServerUnsuitable(
            f"{name} of Postgres {major} is not on this machine; install postgresql-client-{major},"
            " or name the directory it is in by TENANTRY_POSTGRES_PROGRAMS"
        )

    def _candidates(self, name: _Name) -> Iterator[Path]:
        packaged = sorted(_PACKAGED.glob("*/bin"))
        # ``None`` is PATH.
        for directory in (*self._directories, *packaged, None):
            if found := shutil.which(name, path=str(directory) if directory else None):
                yield Path(found)


@cache
def version(program: Path) -> str:
    """What the program says of itself, for example ``pg_dump (PostgreSQL) 15.20``; asked once."""
    answer = subprocess.run(  # noqa: S603 - a program of ours, with nothing from outside
        [program, "--version"],
        check=False,
        capture_output=True,
        text=True,
        timeout=_VERSION_SECONDS,
        env=child_environment(),
    )
    return answer.stdout.strip()


class LibpqSession(msgspec.Struct, frozen=True):
    """What a program needs to connect: its environment, and the files in memory it refers to."""

    environment: dict[str, str]
    files: tuple[int, ...]


@contextmanager
def libpq(address: ServerAddress, database: str, session_name: str) -> Iterator[LibpqSession]:
    """One login to one database, for programs that are started within the block."""
    with ExitStack() as stack:
        password = re.sub(r"([\\:])", r"\\\1", address.password.reveal())
        passfile = stack.enter_context(memory_file(f"*:*:*:*:{password}\n".encode()))
        files = [passfile]
        told = {
            # Nothing that the account's owner keeps at home has a say.
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "PGHOST": address.host,
            "PGHOSTADDR": address.hostaddr or "",
            "PGPORT": str(address.port),
            "PGUSER": address.user,
            "PGPASSFILE": file_path(passfile),
            "PGDATABASE": database,
            "PGAPPNAME": session_name,
            "PGCONNECT_TIMEOUT": _CONNECT_SECONDS,
            "PGSSLMODE": address.tls,
            "PGGSSENCMODE": "disable",
            "PGREQUIREAUTH": "scram-sha-256",
            "PGCHANNELBINDING": "disable" if address.tls == "disable" else "require",
        }
        if address.ca_pem is not None:
            files.append(stack.enter_context(memory_file(address.ca_pem.encode("ascii"))))
            told["PGSSLROOTCERT"] = file_path(files[-1])
        elif address.tls == "verify-full":
            told["PGSSLROOTCERT"] = _authorities()
        yield LibpqSession(_without_libpq() | told, tuple(files))


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """The descriptor of a file that is in memory only, private, and gone with the block."""
    descriptor = os.memfd_create("tenantry")
    try:
        os.fchmod(descriptor, 0o600)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """Both ends of a pipe to or from a program, closed at the end of the block at the latest."""
    ends = os.pipe()
    with FileIO(ends[0], "rb") as reading, FileIO(ends[1], "wb") as writing:
        # An account may have too many large ones already.
        with suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        yield reading, writing


def file_path(descriptor: int) -> str:
    """How a program that inherits ``descriptor`` opens it by name."""
    return f"/proc/self/fd/{descriptor}"


class Running:
    """A program that was started."""

    def __init__(self, program: Path, process: Process, words: "asyncio.Task[str]") -> None:
        self._program = program
        self._process = process
        self._words = words

    async def finished(self) -> None:
        """Wait until it has ended by itself, and well.

        Raises:
            ServerUnavailable: the server went away or does not let anybody in at the moment.
            ObjectInUse: somebody kept a lock for longer than the program was told to wait.
            DiskFull: the server has no room.
            DumpFailed: anything else; the message carries its last words.
        """
        code = await self._process.wait()
        _kill_group(self._process)
        words = await self._words
        if code:
            raise _failure(self._program.name, code, words)


@asynccontextmanager
async def running(
    program: Path,
    arguments: Sequence[str],
    session: LibpqSession,
    *,
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    files: Sequence[int] = (),
) -> AsyncIterator[Running]:
    """Start a program; at the end of the block it is gone, killed if it has not ended.

    It dies with this process. ``stdin`` and ``stdout`` are descriptors, ``files`` those of its
    arguments. ``arguments`` hold nothing that a tenant named.
    """
    # Not asyncio's: wait() would wait for the pipe too, which the program's own processes hold.
    ends = os.pipe()
    words = asyncio.create_task(_listen(ends[0]))
    try:
        process = await asyncio.create_subprocess_exec(
            *(*_bound_to_us(), str(program), *arguments),
            stdin=stdin,
            stdout=stdout,
            stderr=ends[1],
            env=session.environment,
            pass_fds=(*session.files, *files),
            # With the processes it starts itself it is one group, which is killed as one.
            start_new_session=True,
        )
    finally:
        os.close(ends[1])
    try:
        yield Running(program, process, words)
    finally:
        _kill_group(process)
        await process.wait()
        await words


def last_words(stderr: str) -> str:
    """The errors a Postgres program ended with, in one line, without a value of a row."""
    found = [match[1] for line in stderr.splitlines() if (match := _WORD.match(line))]
    return "; ".join(_shown(text) for text in found[-_WORDS_LINES:])


def _shown(text: str) -> str:
    text = "".join(filter(str.isprintable, _VALUE.sub("…", text.removeprefix(_FROM_SERVER))))
    return text if len(text) <= _WORDS_CHARACTERS else f"{text[:_WORDS_CHARACTERS]}…"


def _failure(program: str, code: int, stderr: str) -> TenantryError:
    words = last_words(stderr)
    kind = next((kind for meaning, kind in _MEANINGS if meaning.search(words)), DumpFailed)
    if words:
        return kind(f"{program}: {words}")
    if code < 0:
        return kind(f"{program} was ended by signal {-code}")
    return kind(f"{program} ended with exit code {code} and said nothing")


def _kill_group(process: Process) -> None:
    """Kill the program unless it has ended well, and the processes that it has started."""
    if process.returncode != 0:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _listen(reading: int) -> str:
    """The end of what a program writes to stderr, read all along so that it never waits for us."""
    kept = bytearray()
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        while piece := await stream.read(_KEPT_BYTES):
            kept += piece
            del kept[:-_KEPT_BYTES]
    finally:
        transport.close()
    return kept.decode(errors="replace")


def _bound_to_us() -> tuple[str, ...]:
    """What to put in front of a command so that it dies when we do, where util-linux is."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def _major(text: str) -> int | None:
    match = _VERSION.search(text)
    return int(match[1]) if match else None


def _authorities() -> str:
    """The machine's certificate authorities; libpq before 16 does not find them by itself."""
    found = next((path for path in _AUTHORITIES if path.is_file()), None)
    return str(found) if found else "system"


def _without_libpq() -> dict[str, str]:
    """Our environment without what libpq and its programs would read from it."""
    return {k: v for k, v in child_environment().items() if not k.startswith("PG")}
