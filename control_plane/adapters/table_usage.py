"""Inside a tenant's database: sizes and scans of tables, indexes of no use or missing."""

import datetime as dt

import msgspec

from control_plane.adapters.postgres_server import Connection, translated

_TABLES = """
SELECT format('%I.%I', s.schemaname, s.relname) AS name,
       pg_total_relation_size(s.relid) AS bytes, pg_indexes_size(s.relid) AS index_bytes,
       s.n_live_tup AS rows, s.n_dead_tup AS dead_rows, s.seq_scan AS full_scans,
       s.seq_tup_read AS full_scan_rows, coalesce(s.idx_scan, 0) AS index_scans,
       s.n_tup_ins + s.n_tup_upd + s.n_tup_del AS rows_written,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at
  FROM pg_stat_user_tables s
 WHERE s.schemaname NOT IN ('cp_meta', 'information_schema')
 ORDER BY bytes DESC, 1 LIMIT $1
"""
# An index that makes something unique, or that a constraint stands on, is of use unread.
_UNUSED = """
SELECT format('%I.%I', s.schemaname, s.indexrelname) AS name,
       format('%I.%I', s.schemaname, s.relname) AS table, pg_relation_size(s.indexrelid) AS bytes
  FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid
 WHERE s.idx_scan = 0 AND NOT i.indisunique AND NOT i.indisexclusion
   AND s.schemaname <> 'cp_meta'
   AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = s.indexrelid)
 ORDER BY bytes DESC, 1 LIMIT $1
"""
# The columns of the key, in any order, are the first of some whole index.
_KEYS = """
SELECT c.conname AS name, c.conrelid::regclass::text AS table,
       ARRAY (SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k (n, place)
                JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n
               ORDER BY k.place) AS columns,
       c.confrelid::regclass::text AS references
  FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
  JOIN pg_namespace n ON n.oid = t.relnamespace
 WHERE c.contype = 'f' AND c.conparentid = 0 AND n.nspname NOT IN ('pg_catalog', 'cp_meta')
   AND NOT EXISTS (
       SELECT FROM pg_index i
        WHERE i.indrelid = c.conrelid AND i.indisvalid AND i.indpred IS NULL
          AND (i.indkey::smallint[])[0:cardinality(c.conkey) - 1] @> c.conkey
          AND (i.indkey::smallint[])[0:cardinality(c.conkey) - 1] <@ c.conkey)
 ORDER BY 2, 1 LIMIT $1
"""


class TableFacts(msgspec.Struct, frozen=True):
    """One table since its statistics were reset; ``full_scans`` read it from end to end."""

    name: str
    bytes: int
    index_bytes: int
    rows: int
    dead_rows: int
    full_scans: int
    full_scan_rows: int
    index_scans: int
    rows_written: int
    vacuumed_at: dt.datetime | None


class UnusedIndex(msgspec.Struct, frozen=True):
    """An index that was never read since the reset, and is written with every row."""

    name: str
    table: str
    bytes: int


class UnindexedKey(msgspec.Struct, frozen=True):
    """A foreign key whose columns no index begins with: deleting what it points to scans."""

    name: str
    table: str
    columns: list[str]
    references: str


class TableUsage(msgspec.Struct, frozen=True):
    """The biggest tables, and what their indexes lack or need not have."""

    tables: list[TableFacts]
    unused_indexes: list[UnusedIndex]
    unindexed_keys: list[UnindexedKey]


async def read_tables(connection: Connection, most: int) -> TableUsage:
    """Ask in the tenant's database; ``most`` of each kind are told, the biggest first."""
    with translated():
        tables = await connection.fetch(_TABLES, most)
        unused = await connection.fetch(_UNUSED, most)
        keys = await connection.fetch(_KEYS, most)
    return TableUsage(
        [TableFacts(**dict(row)) for row in tables],
        [UnusedIndex(**dict(row)) for row in unused],
        [UnindexedKey(**dict(row)) for row in keys],
    )
