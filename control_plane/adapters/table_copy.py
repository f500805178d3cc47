"""Rows carried from one server to another: COPY out of one, into the other, nothing on disk."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from control_plane.adapters.pace import Pace
from control_plane.adapters.postgres_server import Connection, connect, translated
from control_plane.adapters.schema_copy import Place
from control_plane.domain.moves import Progress, Table

_LONG_SECONDS = 30 * 24 * 3600.0
_PIECES = 16
_SESSION = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "30s",
}
_TELL_SECONDS = 1.0

Told = Callable[[Progress], Awaitable[None]]


class TableCopy:
    """One run over all tables, by several pairs of connections, the largest tables first."""

    def __init__(
        self, source: Place, target: Place, snapshot: str, *, binary: bool, pace: Pace
    ) -> None:
        self._source = source
        self._target = target
        self._snapshot = snapshot
        self._format = "binary" if binary else "text"
        self._pace = pace
        self._done = 0
        self._rows = 0

    async def run(self, tables: Sequence[Table], *, jobs: int, told: Told) -> int:
        """Copy every table; how many rows there were. ``told`` is called about once a second.

        Raises:
            ServerUnavailable, ObjectInUse, DiskFull, UnexpectedDatabaseError: one side failed;
                whatever was copied by then is there.
        """
        waiting = sorted(tables, key=lambda table: -table.size)
        total = sum(table.size for table in tables)
        started = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work(waiting)) for _ in range(jobs)]
                while not all(worker.done() for worker in workers):
                    await asyncio.wait(workers, timeout=_TELL_SECONDS)
                    seconds = time.monotonic() - started
                    await told(self._progress(total, seconds))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return self._rows

    def _progress(self, total: int, seconds: float) -> Progress:
        return Progress(self._done, total, self._rows, seconds, 0, self._pace.rested)

    async def _work(self, waiting: list[Table]) -> None:
        source = await connect(
            self._source.address, self._source.database, self._source.session, settings=_SESSION
        )
        try:
            target = await connect(
                self._target.address, self._target.database, self._target.session, settings=_SESSION
            )
            try:
                while waiting:
                    await self._copy(source, target, waiting.pop(0))
            finally:
                target.terminate()
        finally:
            source.terminate()

    async def _copy(self, source: Connection, target: Connection, table: Table) -> None:
        columns = f"({', '.join(table.columns)})" if table.columns else ""
        out = f"COPY {table.name} {columns} TO STDOUT (FORMAT {self._format})"
        into = f"COPY {table.name} {columns} FROM STDIN (FORMAT {self._format}, FREEZE)"
        with translated():
            async with source.transaction(isolation="repeatable_read", readonly=True):
                await source.execute(f"SET TRANSACTION SNAPSHOT '{self._snapshot}'")
                async with target.transaction():
                    # Rows that go into a table emptied by the same transaction are born frozen.
                    await target.execute(f"TRUNCATE ONLY {table.name}")
                    self._rows += await self._pipe(source, out, target, into)

    async def _pipe(self, source: Connection, out: str, target: Connection, into: str) -> int:
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)

        async def read() -> None:
            async def take(piece: bytes) -> None:
                await self._pace.turn()
                self._done += len(piece)
                await pieces.put(bytes(piece))

            await _copy_out(source, out, take)
            await pieces.put(None)

        async def write() -> str:
            return await _copy_in(target, into, _until_none(pieces))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                writing = group.create_task(write())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return int(writing.result().rpartition(" ")[2])


async def _until_none(pieces: "asyncio.Queue[bytes | None]") -> AsyncIterator[bytes]:
    while (piece := await pieces.get()) is not None:
        yield piece


async def _copy_out(
    connection: Connection, statement: str, take: Callable[[bytes], Awaitable[None]]
) -> None:
    # The driver builds its statement from parts it quotes itself; ours are quoted by Postgres.
    await connection._copy_out(statement, take, _LONG_SECONDS)  # type: ignore[attr-defined]  # noqa: SLF001


async def _copy_in(connection: Connection, statement: str, pieces: AsyncIterator[bytes]) -> str:
    status: str = await connection._copy_in(statement, pieces, _LONG_SECONDS)  # type: ignore[attr-defined]  # noqa: SLF001
    return status
