-- The tables (r), partitioned tables (p) and sequences (S) that are in a backup of this database, the
-- biggest first; with a table comes the statement that counts its rows and sums up a hash of each,
-- with a sequence the one that reads it.
--
-- hash_record_extended adds up its columns: two rows that swap values in one column have the same
-- sum. So each row's hash is hashed once more (OFFSET 0: it is computed once and used twice).
-- Columns go by name: a restored table that inherits may have them in another order. A column of
-- one of the first types is hashed as it is (text by its bytes, whatever its collation ignores),
-- of the next ones as they are sent in binary; everything else is hashed as it is written out.
-- concat() and num_nulls() call the output function of a type and no cast, operator or function that
-- a tenant could define. Generated columns are left out, as they are in a dump.
WITH RECURSIVE base AS (
    SELECT oid AS type, oid AS base FROM pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT t.oid, b.base FROM pg_type t JOIN base b ON t.typbasetype = b.type WHERE t.typtype = 'd'
), member AS (
    SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e'
), relation AS (
    SELECT c.oid, c.relkind, c.relname, n.nspname,
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cp_meta')
       AND c.oid NOT IN (SELECT objid FROM member)
), hashed AS (
    SELECT r.oid,
           string_agg(
               CASE WHEN b.base IN ('text'::regtype, 'varchar'::regtype)
                    THEN format('t.%I COLLATE "C"', a.attname)
                    WHEN b.base IN ('boolean'::regtype, 'smallint'::regtype, 'integer'::regtype,
                                    'bigint'::regtype, 'oid'::regtype, 'uuid'::regtype,
                                    'date'::regtype, 'time'::regtype, 'timestamp'::regtype,
                                    'timestamptz'::regtype, 'bytea'::regtype)
                    THEN format('t.%I', a.attname)
                    WHEN b.base = 'real'::regtype THEN format('float4send(t.%I)', a.attname)
                    WHEN b.base = 'float8'::regtype THEN format('float8send(t.%I)', a.attname)
                    WHEN b.base = 'numeric'::regtype THEN format('numeric_send(t.%I)', a.attname)
                    WHEN b.base = 'bpchar'::regtype THEN format('bpcharsend(t.%I)', a.attname)
                    WHEN b.base = 'interval'::regtype THEN format('interval_send(t.%I)', a.attname)
                    WHEN b.base = 'money'::regtype THEN format('cash_send(t.%I)', a.attname)
                    ELSE format('(CASE num_nulls(t.%1$I) WHEN 0 THEN concat(t.%1$I) END) COLLATE "C"',
                                a.attname)
               END, ', ' ORDER BY a.attname) AS columns
      FROM relation r
      JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
                         AND a.attgenerated = ''
      JOIN base b ON b.type = a.atttypid
     WHERE r.relkind = 'r'
     GROUP BY r.oid
)
SELECT r.relkind::text AS kind, format('%I.%I', r.nspname, r.relname) AS name, r.readable,
       row_security_active(r.oid) AS guarded, coalesce(pg_table_size(r.oid), 0) AS bytes,
       CASE r.relkind
            WHEN 'r' THEN
                format('SELECT count(*) AS rows, coalesce(sum(hashint8extended(h, h)), 0) AS digest '
                       'FROM (SELECT hash_record_extended(ROW(%s), 0) AS h FROM ONLY %I.%I AS t '
                       'OFFSET 0) AS s', h.columns, r.nspname, r.relname)
            WHEN 'S' THEN
                format('SELECT %L AS name, last_value, is_called, %L::boolean AS ascending '
                       'FROM %I.%I', format('%I.%I', r.nspname, r.relname), s.seqincrement > 0,
                       r.nspname, r.relname)
       END AS statement
  FROM relation r
  LEFT JOIN hashed h ON h.oid = r.oid
  LEFT JOIN pg_sequence s ON s.seqrelid = r.oid
 ORDER BY bytes DESC, r.oid
