"""What a tenant server counts: all databases over one connection, sizes, slow statements."""

import math

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.domain.usage import Counters, Look

# The server counts a statement when it has ended; those that run are added here. Leaders only:
# what their parallel workers do belongs to the same time.
_LOOK = """
SELECT d.datname,
       coalesce(extract(epoch FROM d.stats_reset), 0)::float8,
       d.active_time + coalesce(a.active_ms, 0),
       d.idle_in_transaction_time + coalesce(a.idle_ms, 0),
       d.sessions, d.xact_commit, d.xact_rollback, d.tup_returned, d.tup_fetched,
       d.tup_inserted + d.tup_updated + d.tup_deleted, d.temp_bytes, d.blks_read, d.blks_hit,
       d.deadlocks, coalesce(a.connections, 0), coalesce(a.running, 0), coalesce(a.blocked, 0),
       extract(epoch FROM clock_timestamp())::float8
  FROM pg_stat_database d
  LEFT JOIN (SELECT datid, count(*) AS connections,
                    count(*) FILTER (WHERE state = 'active') AS running,
                    count(*) FILTER (WHERE wait_event_type = 'Lock') AS blocked,
                    coalesce(sum(1000 * extract(epoch FROM clock_timestamp() - state_change))
                             FILTER (WHERE state IN ('active', 'fastpath function call')), 0)
                        ::float8 AS active_ms,
                    coalesce(sum(1000 * extract(epoch FROM clock_timestamp() - state_change))
                             FILTER (WHERE state LIKE 'idle in transaction%'), 0)::float8 AS idle_ms
               FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND datid IS NOT NULL
              GROUP BY datid) a ON a.datid = d.datid
 WHERE d.datid <> 0 AND d.datname IS NOT NULL
"""
_SIZES = """
SELECT datname, pg_database_size(oid) AS bytes FROM pg_database WHERE datname = ANY ($1::text[])
"""
_HAS_STATEMENTS = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')
   AND 'pg_stat_statements' = ANY (
           string_to_array(replace(current_setting('shared_preload_libraries'), ' ', ''), ','))
"""
_STATEMENTS = """
SELECT s.queryid::text AS id, left(regexp_replace(s.query, '\\s+', ' ', 'g'), 300) AS text,
       s.calls, s.total_exec_time AS total_ms, s.mean_exec_time AS mean_ms,
       s.rows, s.shared_blks_read AS blocks_read,
       s.temp_blks_written * current_setting('block_size')::bigint AS temp_bytes
  FROM {schema}.pg_stat_statements s
  JOIN pg_database d ON d.oid = s.dbid
 WHERE d.datname = $1
 ORDER BY s.total_exec_time DESC LIMIT $2
"""
_SCHEMA_OF_STATEMENTS = """
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'pg_stat_statements'
"""


class Statement(msgspec.Struct, frozen=True):
    """A kind of statement, its values left out by the server, and what it cost since the reset."""

    id: str
    text: str
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    blocks_read: int
    temp_bytes: int


async def look(connection: Connection) -> Look:
    """The counters of every database of the server."""
    with translated():
        rows = await connection.fetch(_LOOK)
    found = {row[0]: Counters(*list(row)[1:-1]) for row in rows}
    return Look(max((row[-1] for row in rows), default=math.nan), found)


async def sizes(connection: Connection, names: list[str]) -> dict[str, int]:
    """Bytes on disk of those of these databases that exist."""
    with translated():
        rows = await connection.fetch(_SIZES, names)
    return {row["datname"]: row["bytes"] for row in rows}


async def slow_statements(
    connection: Connection, database: str, most: int
) -> list[Statement] | None:
    """What took most time in a database, asked in ``postgres``; ``None`` if nobody counts it.

    pg_stat_statements forgets what is seldom run, so this explains; it measures nothing.
    """
    with translated():
        if not await connection.fetchval(_HAS_STATEMENTS):
            return None
        schema = await connection.fetchval(_SCHEMA_OF_STATEMENTS)
        rows = await connection.fetch(_STATEMENTS.replace("{schema}", schema), database, most)
    return [Statement(**dict(row)) for row in rows]
