"""A database's schema carried to another server by ``pg_dump`` and ``pg_restore``.

Each is of its own server's major version. A newer ``pg_dump`` knows an older server's catalogs as
they were at its own release: 15.20 keeps ``pg_attver`` in ``attoptions``, which ``pg_dump`` 18.6
takes for a setting of the column. A newer ``pg_restore`` reads the archives of older ones.
The archive holds no rows, and is in memory only.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from control_plane.adapters.pg_programs import (
    CONNECTION,
    Programs,
    file_path,
    libpq,
    memory_file,
    running,
)
from control_plane.adapters.postgres_server import ServerAddress

Section = Literal["pre-data", "post-data"]

_DUMP = (
    "--format=custom",
    "--compress=0",
    "--section=pre-data",
    "--section=post-data",
    "--exclude-schema=cp_meta",
    "--no-publications",
    "--no-subscriptions",
    # Large objects, by the one name of this option that all versions know.
    "-B",
    "--lock-wait-timeout=10s",
)
# The columns of a line of --list: number; catalog, oid, kind (one or more words), schema, name.
_MADE_ALREADY = ("EXTENSION", "COMMENT - EXTENSION", "MATERIALIZED VIEW DATA")


class Place(msgspec.Struct, frozen=True):
    """A database as one login sees it; ``session`` names what runs there."""

    address: ServerAddress
    database: str
    session: str


class Archive(msgspec.Struct, frozen=True):
    """A schema: the descriptor of its archive, and the major versions of both servers."""

    descriptor: int
    source_major: int
    target_major: int


@contextmanager
def archive(source_major: int, target_major: int) -> Iterator[Archive]:
    """Room for a schema, in memory, for the block."""
    with memory_file(b"") as descriptor:
        yield Archive(descriptor, source_major, target_major)


async def dump_schema(programs: Programs, source: Place, snapshot: str, into: Archive) -> None:
    """Write the schema as it is in this snapshot.

    Raises:
        ServerUnsuitable: there is no ``pg_dump`` of this major version.
        ServerUnavailable, ObjectInUse, DumpFailed: see ``pg_programs``.
    """
    os.ftruncate(into.descriptor, 0)
    os.lseek(into.descriptor, 0, os.SEEK_SET)
    with libpq(source.address, source.database, source.session) as session:
        async with running(
            programs.dump(into.source_major),
            [*_DUMP, f"--snapshot={snapshot}", f"--dbname={CONNECTION}"],
            session,
            stdout=into.descriptor,
        ) as dump:
            await dump.finished()


async def restore_schema(
    programs: Programs,
    target: Place,
    held: Archive,
    section: Section,
    *,
    without_schemas: Iterable[str] = (),
    jobs: int = 1,
) -> None:
    """Make one section of the schema; what an administrator has made already is left out.

    Raises:
        ServerUnsuitable: there is no ``pg_restore`` of this major version.
        ServerUnavailable, DiskFull, DumpFailed: see ``pg_programs``.
    """
    listed = await _list(programs, target, held)
    wanted = b"\n".join(_wanted(listed, frozenset(without_schemas))) + b"\n"
    how = [f"--jobs={jobs}"] if jobs > 1 else ["--single-transaction"]
    with (
        libpq(target.address, target.database, target.session) as session,
        memory_file(wanted) as entries,
    ):
        async with running(
            programs.restore(held.target_major),
            [
                *how,
                "--exit-on-error",
                # A tablespace is a place on the source's machine.
                "--no-tablespaces",
                f"--section={section}",
                f"--use-list={file_path(entries)}",
                f"--dbname={CONNECTION} dbname={target.database}",
                file_path(held.descriptor),
            ],
            session,
            files=(entries, held.descriptor),
        ) as restore:
            await restore.finished()


async def _list(programs: Programs, target: Place, held: Archive) -> bytes:
    with (
        libpq(target.address, target.database, target.session) as session,
        memory_file(b"") as told,
    ):
        async with running(
            programs.restore(held.target_major),
            ["--list", file_path(held.descriptor)],
            session,
            stdout=told,
            files=(held.descriptor,),
        ) as listing:
            await listing.finished()
        return await asyncio.to_thread(_content, told)


def _content(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def _wanted(listed: bytes, made: frozenset[str]) -> Iterator[bytes]:
    for line in listed.splitlines():
        _, semicolon, rest = line.partition(b"; ")
        entry = rest.split(b" ", 2)[-1].decode(errors="replace")
        if line.startswith(b";") or not semicolon or not _is_made(entry, made):
            yield line


def _is_made(entry: str, made: frozenset[str]) -> bool:
    """Whether an entry, ``KIND SCHEMA NAME OWNER``, is there before the archive is read.

    The privileges of functions of Postgres itself come with our own schema.
    """
    if entry.startswith((*_MADE_ALREADY, "ACL pg_catalog ")):
        return True
    return any(entry.startswith(f"SCHEMA - {schema} ") for schema in made)
