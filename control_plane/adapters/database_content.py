"""What a database holds, in numbers that are equal wherever the same rows were restored.

The server sums up a hash of every row (sql/content_relations.sql says how), so that no row leaves
it. That costs the server a quarter (long texts) to all (short rows) of what a COPY of them costs.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack

from control_plane.adapters.database_snapshot import TABLE, Relation, frozen, read_sequences
from control_plane.adapters.postgres_server import Connection, ServerAddress, translated
from control_plane.adapters.side_by_side import side_by_side
from control_plane.adapters.sql_text import load
from control_plane.domain.backups import Content, TableContent

# A table may take the time it needs; a function of the tenant's that never returns, called while
# the statement is planned, may not keep a backup's place for ever.
_LEAST_SECONDS = 600.0
_LEAST_BYTES_PER_SECOND = 1_000_000
_LARGE_OBJECTS_SECONDS = 7 * 86_400.0


async def read_content(
    address: ServerAddress,
    database: str,
    session_name: str,
    *,
    snapshot: str | None = None,
    at_once: int = 1,
    told: Callable[[str], None] | None = None,
) -> Content:
    """Count and digest everything as ``snapshot`` shows it, or as it is now.

    ``at_once`` tables are read at a time, the big ones first. ``told`` hears how far it has come.

    Raises:
        ServerUnavailable, ServerRefused, ObjectInUse, DumpFailed: see ``frozen``.
    """
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(frozen(address, database, session_name, snapshot))
        reading = _Reading(first.of(TABLE), told)
        others = [
            await stack.enter_async_context(frozen(address, database, session_name, first.name))
            for _ in range(1, min(at_once, reading.total))
        ]
        sequences = await read_sequences(first)
        await side_by_side(*(reading.run(each.connection) for each in (first, *others)))
        large_objects = await _read(
            first.connection, load("content_large_objects"), _LARGE_OBJECTS_SECONDS
        )
    return Content(reading.found, sequences, large_objects)


class _Reading:
    """Tables that wait, and what was found in the others; shared by the sessions that read."""

    def __init__(self, tables: list[Relation], told: Callable[[str], None] | None) -> None:
        self.total = len(tables)
        self.found: dict[str, TableContent] = {}
        self._waiting = deque(tables)
        self._told = told

    async def run(self, connection: Connection) -> None:
        """Read one table after the other until none waits."""
        while self._waiting:
            table = self._waiting.popleft()
            seconds = _LEAST_SECONDS + table.bytes / _LEAST_BYTES_PER_SECOND
            self.found[table.name] = await _read(connection, str(table.statement), seconds)
            if self._told is not None:
                self._told(f"{len(self.found)} of {self.total} tables read")


async def _read(connection: Connection, statement: str, seconds: float) -> TableContent:
    with translated():
        row = await connection.fetchrow(statement, timeout=seconds)
    if row is None:
        raise TypeError("an aggregate has a row")
    return TableContent(row["rows"], str(int(row["digest"])))
