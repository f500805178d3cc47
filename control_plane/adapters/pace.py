"""A copy that steps back while others suffer: the server whose rows are read is asked how it does.

A small write is committed now and then, and timed by the server itself. When it takes several
times what it took before the copy, and somebody but us is at work there, the copy rests for a
moment. It rests for two thirds of the time at most, so it always comes to its end; on a server
that nobody else uses it never rests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median

from control_plane.adapters import replication
from control_plane.adapters.postgres_server import Connection, translated
from control_plane.domain.errors import ObjectInUse, TenantryError

_TIMES = 5.0
# Less than this nobody notices, however fast the server is when it rests.
_FLOOR_MS = 10.0
_FIRST_PROBES = 5
_EVERY_SECONDS = 0.25
_REST_SECONDS = 0.5
_SESSION = "SET lock_timeout = '500ms'; SET statement_timeout = '10s'"
_PROBE = f"""
DO $body$
DECLARE began timestamptz := clock_timestamp();
BEGIN
    INSERT INTO {replication.MARKER} VALUES (gen_random_uuid());
    COMMIT;
    PERFORM set_config('cp.probe_ms',
                       (extract(epoch FROM clock_timestamp() - began) * 1000)::text, false);
END $body$
"""  # noqa: S608 - a constant
_TOOK = """
SELECT nullif(current_setting('cp.probe_ms', true), '')::float8 AS ms,
       EXISTS (SELECT FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND state = 'active'
                  AND NOT starts_with(application_name, 'cp:')) AS others
"""


class Pace:
    """Whether a copy may go on; ``rested`` is for how many seconds it did not."""

    def __init__(self) -> None:
        self.rested = 0.0
        self._go = asyncio.Event()
        self._go.set()

    async def turn(self) -> None:
        """Wait until the copy may take its next block."""
        await self._go.wait()

    @asynccontextmanager
    async def kept(self, probing: Connection) -> AsyncIterator["Pace"]:
        """Watch the server for the block. ``probing`` is an administrator's, for nothing else."""
        with translated():
            await probing.execute(_SESSION)
        usual = median([(await _probe(probing))[0] for _ in range(_FIRST_PROBES)])
        watching = asyncio.create_task(self._watch(probing, max(_FLOOR_MS, _TIMES * usual)))
        try:
            yield self
        finally:
            self._go.set()
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self, probing: Connection, most_ms: float) -> None:
        # A server that does not answer is told by the copy itself.
        with suppress(TenantryError):
            while True:
                await _wait(probing, _EVERY_SECONDS)
                took, others = await _probe(probing)
                if others and took > most_ms:
                    self._go.clear()
                    await _wait(probing, _REST_SECONDS)
                    self.rested += _REST_SECONDS
                    self._go.set()


async def _wait(probing: Connection, seconds: float) -> None:
    with translated():
        await probing.execute("SELECT pg_sleep($1)", seconds)


async def _probe(probing: Connection) -> tuple[float, bool]:
    """How long a small write took, in milliseconds, and whether others are at work."""
    try:
        with translated():
            await probing.execute(_PROBE)
        waited = 0.0
    except ObjectInUse:
        waited = float("inf")
    with translated():
        row = await probing.fetchrow(_TOOK)
    return (max(waited, row["ms"] or 0.0), row["others"]) if row is not None else (0.0, False)
