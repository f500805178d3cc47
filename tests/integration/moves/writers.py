"""Applications that write all the time and remember what was acknowledged (I-6)."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tests.driver import Driver

_SCHEMA = """
SET ROLE {owner};
CREATE TABLE public.acked (id bigint PRIMARY KEY, writer int NOT NULL, nth int NOT NULL,
                           UNIQUE (writer, nth));
CREATE SEQUENCE public.acked_id;
GRANT SELECT, INSERT ON public.acked TO {app};
GRANT USAGE ON SEQUENCE public.acked_id TO {app};
GRANT SELECT ON public.acked, public.acked_id TO {backup};
RESET ROLE;
"""
_WRITE = "INSERT INTO public.acked VALUES (nextval('public.acked_id'), $1, $2) RETURNING id"
_GONE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_numbers: Iterator[int] = itertools.count(1)


@dataclass
class Writer:
    """One connection of an application, made again when it is lost."""

    door: dict[str, Any]
    session: bool
    number: int = field(default_factory=lambda: next(_numbers))
    acked: list[tuple[int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0

    async def run(self, stop: asyncio.Event, pause: float) -> None:
        nth = 0
        connection = None
        last = time.monotonic()
        while not stop.is_set():
            nth += 1
            try:
                if connection is None:
                    connection = await asyncpg.connect(**self.door, timeout=60)
                row = await connection.fetchval(_WRITE, self.number, nth, timeout=60)
                self.acked.append((row, nth))
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
            except _GONE as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                if connection is not None:
                    connection.terminate()
                connection = None
                await asyncio.sleep(0.01)
            await asyncio.sleep(pause)
        if connection is not None:
            await connection.close()


@dataclass
class Fleet:
    """All writers of one tenant."""

    slug: str
    writers: list[Writer]

    @property
    def doors(self) -> list[dict[str, Any]]:
        return [writer.door for writer in self.writers]

    @property
    def pooled(self) -> list[Writer]:
        return [writer for writer in self.writers if not writer.session]

    def acked(self) -> set[int]:
        return {row for writer in self.writers for row, _ in writer.acked}

    async def check(self, inside: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Everything acknowledged is there, once, in its order; writers may go on meanwhile."""
        acked = self.acked()
        rows = await inside.fetch("SELECT id, writer, nth FROM public.acked")
        found = {row["id"]: (row["writer"], row["nth"]) for row in rows}
        assert len(found) == len(rows)
        lost = acked - found.keys()
        assert not lost, f"{len(lost)} acknowledged rows are lost"
        for writer in self.writers:
            assert writer.acked == sorted(writer.acked), "acknowledged rows changed their order"
            expected = {row: (writer.number, nth) for row, nth in writer.acked if row in acked}
            assert expected.items() <= found.items()
        last = await inside.fetchval("SELECT last_value FROM public.acked_id")
        assert last >= max(found, default=0)


async def prepare(inside: "asyncpg.Connection[asyncpg.Record]", tenant_id: str) -> None:
    """The table that writers write to, as the owner would make it."""
    prefix = f"t_{tenant_id.removeprefix('tn_')}"
    await inside.execute(
        _SCHEMA.format(owner=f"{prefix}_owner", app=f"{prefix}_app", backup=f"{prefix}_bak")
    )


@asynccontextmanager
async def writing(
    driver: Driver, slug: str, *, pooled: int = 2, sessions: int = 1, pause: float = 0.005
) -> AsyncIterator[Fleet]:
    """Writers at every pooler and both endpoints, until the block ends."""
    fleet = Fleet(slug, [])
    for pool, count in (("transaction", pooled), ("session", sessions)):
        revealed = await driver.dsn(slug, pool)
        url = urlsplit(revealed["dsn"])
        for pooler in revealed["poolers"]:
            door = {
                "host": pooler["host"],
                "port": pooler["port"],
                "database": url.path.lstrip("/"),
                "user": url.username,
                "password": url.password,
                "ssl": False,
                "statement_cache_size": 0,
            }
            fleet.writers += [Writer(door, pool == "session") for _ in range(count)]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(writer.run(stop, pause)) for writer in fleet.writers]
    try:
        yield fleet
    finally:
        stop.set()
        await asyncio.gather(*tasks)
