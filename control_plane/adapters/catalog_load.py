"""Loading a backup of the catalog into an empty database, whole or not at all."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

from control_plane.adapters import pg_programs
from control_plane.adapters.catalog_server import SESSION_NAME, CatalogServer
from control_plane.adapters.load import feed
from control_plane.adapters.postgres_server import connect, translated

# Everything is the catalog's own role's, which is who loads it.
_ARGUMENTS = (
    f"--dbname={pg_programs.CONNECTION}",
    *("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"),
)
_TAKEN = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v')
"""


async def is_empty(server: CatalogServer) -> bool:
    """Whether there is no table in the database."""
    connection = await connect(server.address, server.database, SESSION_NAME)
    try:
        with translated():
            return not await connection.fetchval(_TAKEN)
    finally:
        connection.terminate()


async def load_catalog(server: CatalogServer, archive: Iterator[bytes], program: Path) -> None:
    """Restore the archive in one transaction; ``program`` is the server's own ``pg_restore``.

    Raises:
        BackupCorrupt: what comes is not the archive.
        DumpFailed: ``pg_restore`` failed; nothing is in the database then.
        ServerUnavailable, DiskFull: see ``pg_programs``.
    """
    stop = threading.Event()
    feeding: asyncio.Task[None] | None = None
    with (
        pg_programs.libpq(server.address, server.database, SESSION_NAME) as session,
        pg_programs.pipe() as (reading, writing),
    ):
        try:
            async with pg_programs.running(
                program, _ARGUMENTS, session, stdin=reading.fileno()
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
