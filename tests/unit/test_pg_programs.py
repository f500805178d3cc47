"""Postgres' programs: which one is found, what one is told, what is repeated of its last words."""

import asyncio
import os
import re
from pathlib import Path

import psutil
import pytest

from control_plane.adapters.pg_programs import (
    Programs,
    file_path,
    last_words,
    libpq,
    memory_file,
    running,
)
from control_plane.adapters.postgres_server import ServerAddress
from control_plane.config import Secret
from control_plane.domain.errors import (
    DiskFull,
    DumpFailed,
    ObjectInUse,
    ServerUnavailable,
    ServerUnsuitable,
    TenantryError,
)

PASSWORD = "a:very\\secret:word"
ADDRESS = ServerAddress(
    host="pg.tenantry.test",
    hostaddr="127.0.0.1",
    port=5433,
    user="t_x_bak",
    password=Secret(PASSWORD),
    ca_pem="-----BEGIN CERTIFICATE-----\n",
)
# As Postgres 15 and 18 wrote them.
REJECTED_ROW = """\
pg_restore: error: COPY failed for table "w": ERROR:  invalid input syntax for type uuid: "Miller"
CONTEXT:  COPY w, line 1, column i: "Miller"
"""
REJECTED_VALUE = """\
pg_restore: error: COPY failed for table "t": ERROR:  value "Miller" is out of range for type oid
"""
DUPLICATE = """\
pg_restore: error: could not execute query: ERROR:  could not create unique index "t_pkey"
DETAIL:  Key (id)=(Miller) is duplicated.
Command was: ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (id);
"""
LOST = """\
pg_dump: error: Dumping the contents of table "b" failed: PQgetCopyData() failed.
pg_dump: detail: Error message from server: server closed the connection unexpectedly
\tThis probably means the server terminated abnormally
\tbefore or while processing the request.
pg_dump: detail: Command was: COPY public.big (g, t) TO stdout;
"""
LOST_TLS = """\
pg_dump: error: Dumping the contents of table "b" failed: PQgetCopyData() failed.
pg_dump: detail: Error message from server: SSL SYSCALL error
pg_dump: detail: Command was: COPY public.big (g, t) TO stdout;
"""
NOBODY = """\
pg_dump: error: connection to server at "127.0.0.1", port 1 failed: Connection refused
\tIs the server running on that host and accepting TCP/IP connections?
"""
LOCKED = """\
pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout
pg_dump: detail: Query was: LOCK TABLE public.big IN ACCESS SHARE MODE
"""
FULL = """\
pg_restore: error: could not execute query: ERROR:  could not extend file: No space left on device
HINT:  Check free disk space.
"""
DENIED = """\
pg_dump: error: query failed: ERROR:  permission denied for table big
pg_dump: detail: Query was: LOCK TABLE public.big IN ACCESS SHARE MODE
"""


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def installed(folder: Path, name: str, version: str) -> Path:
    return program(folder, name, f"echo '{name} (PostgreSQL) {version}'; echo >> {folder}/asked")


def test_a_program_is_found_by_its_major_version(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, version in ((old, "97.3"), (new, "98beta1 (Debian 98)")):
        for name in ("pg_dump", "pg_restore", "pg_amcheck"):
            installed(folder, name, version)
    programs = Programs([tmp_path / "missing", old, new])
    assert programs.dump(97) == old / "pg_dump"
    assert programs.dump(98) == new / "pg_dump"
    assert programs.restore(98) == new / "pg_restore"
    assert programs.amcheck(98) == new / "pg_amcheck"
    assert programs.dump(98) == new / "pg_dump"
    assert (new / "asked").read_text() == "\n" * 3


def test_a_program_that_is_missing_is_named_with_the_remedy(tmp_path: Path) -> None:
    installed(tmp_path, "pg_dump", "97.3")
    (tmp_path / "pg_restore").write_text("not a program")
    programs = Programs([tmp_path])
    with pytest.raises(ServerUnsuitable) as caught:
        programs.dump(99)
    assert caught.value.message == (
        "pg_dump of Postgres 99 is not on this machine; install postgresql-client-99, or name the "
        "directory it is in by TENANTRY_POSTGRES_PROGRAMS"
    )
    with pytest.raises(ServerUnsuitable, match="pg_restore of Postgres 97"):
        programs.restore(97)


def test_path_is_looked_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    installed(last, "pg_dump", "96.1")
    monkeypatch.setenv("PATH", f"{last}:{os.environ['PATH']}")
    assert Programs().dump(96) == last / "pg_dump"
    installed(first, "pg_dump", "96.0")
    assert Programs([first]).dump(96) == first / "pg_dump"


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (
            REJECTED_ROW,
            'COPY failed for table "w": ERROR:  invalid input syntax for type uuid: …',
        ),
        (
            REJECTED_VALUE,
            'COPY failed for table "t": ERROR:  value … is out of range for type oid',
        ),
        (
            DUPLICATE,
            'could not execute query: ERROR:  could not create unique index "t_pkey"',
        ),
        (
            LOST_TLS,
            'Dumping the contents of table "b" failed: PQgetCopyData() failed.; SSL SYSCALL error',
        ),
        ("pg_dump: warning: no matching tables\nNOTICE: Miller\n", ""),
        ("pg_dump: error: a\x1b[31m name\n", "a[31m name"),
        ("".join(f"pg_dump: error: {i}\n" for i in range(9)), "6; 7; 8"),
        (f"pg_dump: error: {'x' * 5000}\n", f"{'x' * 300}…"),
    ],
)
def test_last_words_hold_errors_and_no_rows(stderr: str, words: str) -> None:
    assert last_words(stderr) == words


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (LOST, ServerUnavailable),
        (LOST_TLS, ServerUnavailable),
        (NOBODY, ServerUnavailable),
        (LOCKED, ObjectInUse),
        (FULL, DiskFull),
        (DENIED, DumpFailed),
        (REJECTED_ROW, DumpFailed),
    ],
)
async def test_an_error_is_what_it_means(
    tmp_path: Path, stderr: str, kind: type[TenantryError]
) -> None:
    (tmp_path / "words").write_text(stderr)
    path = program(tmp_path, "pg_dump", f"cat {tmp_path}/words >&2; exit 1")
    with libpq(ADDRESS, "t_x", "cp:x:1") as session:
        async with running(path, [], session) as started:
            with pytest.raises(kind) as caught:
                await started.finished()
    assert type(caught.value) is kind
    assert caught.value.message.startswith("pg_dump: ")
    assert "Miller" not in caught.value.message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "pg_dump ended with exit code 3 and said nothing"),
        ("kill -9 $$", "pg_dump was ended by signal 9"),
    ],
)
async def test_a_program_that_says_nothing(tmp_path: Path, script: str, words: str) -> None:
    path = program(tmp_path, "pg_dump", script)
    with libpq(ADDRESS, "t_x", "cp:x:1") as session:
        async with running(path, [], session) as started:
            with pytest.raises(DumpFailed, match=words):
                await started.finished()


async def test_a_program_is_told_everything_and_nothing_secret_in_the_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "of somebody else")
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    monkeypatch.setenv("TENANTRY_CATALOG_DSN", "elsewhere")
    path = program(
        tmp_path,
        "pg_dump",
        f"env > {tmp_path}/env; cat $PGPASSFILE > {tmp_path}/pass; stat -Lc %a $PGPASSFILE >> "
        f"{tmp_path}/pass; cat $PGSSLROOTCERT > {tmp_path}/ca; cat $1 > {tmp_path}/argument",
    )
    with libpq(ADDRESS, "t_x", "cp:x:1") as session, memory_file(b"a list") as wanted:
        async with running(path, [file_path(wanted)], session, files=[wanted]) as started:
            await started.finished()
        descriptors = (*session.files, wanted)
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert {k: v for k, v in told.items() if k.startswith(("PG", "TENANTRY"))} == {
        "PGHOST": "pg.tenantry.test",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": "5433",
        "PGUSER": "t_x_bak",
        "PGDATABASE": "t_x",
        "PGAPPNAME": "cp:x:1",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": file_path(descriptors[1]),
        "PGPASSFILE": file_path(descriptors[0]),
        "PGCONNECT_TIMEOUT": "10",
        "PGGSSENCMODE": "disable",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGCHANNELBINDING": "require",
    }
    assert (tmp_path / "pass").read_text() == "*:*:*:*:a\\:very\\\\secret\\:word\n600\n"
    assert (tmp_path / "ca").read_text() == ADDRESS.ca_pem
    assert (tmp_path / "argument").read_text() == "a list"
    assert "very\\secret" not in " ".join(told.values())
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_a_program_is_gone_with_all_it_started(tmp_path: Path) -> None:
    """Also what it started itself, which holds its streams open."""
    path = program(tmp_path, "pg_restore", "sleep 1000 & echo $! > $0.child; sleep 1000")
    child = Path(f"{path}.child")
    with libpq(ADDRESS, "t_x", "cp:x:1") as session:
        async with running(path, [], session):
            while not (child.exists() and re.fullmatch(r"\d+\n", child.read_text())):
                await asyncio.sleep(0)
    while lives(int(child.read_text())):
        await asyncio.sleep(0)


def lives(pid: int) -> bool:
    """A zombie does not: it waits for whoever adopted it."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_jobs_that_write_into_each_others_lines_are_understood() -> None:
    no_room = "ERROR:  could not extend file: No space left on device"
    stderr = (
        f"pg_restore:pg_restore:  error: error: could not execute query: {no_room}\n"
        "HINT:  Check free disk space.\n"
        f"could not execute query: {no_room}\n"
        "Command was: CREATE INDEX secret\n"
        "pg_restore: error: a worker process died unexpectedly\n"
    )
    words = last_words(stderr)
    assert words.count("No space left on device") == 2
    assert words.endswith("a worker process died unexpectedly")
    assert "secret" not in words
