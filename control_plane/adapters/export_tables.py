"""A customer's tables: what they are, and their rows as CSV, all of one instant."""

import asyncio
import datetime as dt
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from control_plane.adapters.database_snapshot import Snapshot
from control_plane.adapters.postgres_server import translated
from control_plane.adapters.sql_text import load

_PIECE_BYTES = 256 * 1024
_LONGEST_COPY_SECONDS = 86_400.0
_INSTANT = """
SELECT now() AS at, (SELECT count(*) FROM pg_largeobject_metadata) AS large_objects
"""


class Column(msgspec.Struct, frozen=True):
    """A column in words; a ``generated`` one is not in the CSV."""

    name: str
    type: str
    required: bool
    identity: bool
    generated: bool
    default: str | None = None
    comment: str | None = None


class Constraint(msgspec.Struct, frozen=True):
    """A rule of a table, as SQL says it."""

    name: str
    definition: str


class Table(msgspec.Struct, frozen=True):
    """A table in words, and the query that reads all of it."""

    schema: str
    name: str
    comment: str | None
    statement: str
    columns: list[Column]
    constraints: list[Constraint]

    @property
    def file(self) -> str:
        """Where its rows are in a bundle; no name of a table leads out of there."""
        return f"data/{_part(self.schema)}/{_part(self.name)}.csv"


class Described(msgspec.Struct, frozen=True):
    """Everything that is exported of a database, and the instant at which it was so."""

    at: dt.datetime
    large_objects: int
    tables: list[Table]


async def describe(snapshot: Snapshot) -> Described:
    """What there is to export in this snapshot."""
    with translated():
        instant = await snapshot.connection.fetchrow(_INSTANT)
        rows = await snapshot.connection.fetch(load("export_tables"))
    return Described(**dict(instant or {}), tables=[_table(dict(row)) for row in rows])


async def copy_csv(snapshot: Snapshot, table: Table, sink: BinaryIO) -> int:
    """Write the rows of ``table`` into ``sink``, after a line with its columns; how many there are.

    ``sink`` may block: it is written by threads.

    Raises:
        ServerRefused: the login may not read the table.
        ServerUnavailable: the server went away.
    """
    held = bytearray()

    async def take(data: bytes) -> None:
        held.extend(data)
        if len(held) >= _PIECE_BYTES:
            await _flush(held, sink)

    with translated():
        status = await snapshot.connection.copy_from_query(
            table.statement,
            output=take,
            format="csv",
            header=True,
            timeout=_LONGEST_COPY_SECONDS,
        )
        await _flush(held, sink)
    return int(status.rpartition(" ")[2])


async def _flush(held: bytearray, sink: BinaryIO) -> None:
    data = bytes(held)
    held.clear()
    await asyncio.to_thread(_write, sink, data)


def _write(sink: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]


def _table(row: dict[str, str]) -> Table:
    return Table(
        schema=row["schema"],
        name=row["name"],
        comment=row["comment"],
        statement=row["statement"],
        columns=msgspec.json.decode(row["columns"], type=list[Column]),
        constraints=msgspec.json.decode(row["constraints"], type=list[Constraint]),
    )


def _part(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")
