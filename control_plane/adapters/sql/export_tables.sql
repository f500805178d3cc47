-- The tables of a database as their owner thinks of them, each with what describes it and with the
-- statement that reads all of it: a partitioned table once, with the rows of its partitions. What
-- belongs to an extension or to us is left out, and so are generated columns from the statement:
-- they cannot be loaded back, and follow from the others.
WITH member AS (
    SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e'
)
SELECT n.nspname AS schema, c.relname AS name, obj_description(c.oid, 'pg_class') AS comment,
       format('SELECT %s FROM %s%I.%I AS t',
              (SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum)
                 FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND a.attgenerated = ''),
              CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END, n.nspname, c.relname) AS statement,
       coalesce((SELECT json_agg(json_build_object(
                     'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                     'required', a.attnotnull, 'identity', a.attidentity <> '',
                     'generated', a.attgenerated <> '',
                     'default', pg_get_expr(d.adbin, d.adrelid),
                     'comment', col_description(c.oid, a.attnum)) ORDER BY a.attnum)
                   FROM pg_attribute a
                   LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')::text
           AS columns,
       coalesce((SELECT json_agg(json_build_object(
                     'name', k.conname, 'definition', pg_get_constraintdef(k.oid))
                     ORDER BY k.contype = 'p' DESC, k.contype, k.conname)
                   FROM pg_constraint k
                  WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c', 'x')), '[]')::text
           AS constraints
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cp_meta')
   AND c.oid NOT IN (SELECT objid FROM member)
 ORDER BY n.nspname, c.relname
