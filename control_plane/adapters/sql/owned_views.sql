-- $1: the tenant's owner. REFRESH CONCURRENTLY wants a populated view and a unique index over plain
-- columns and all rows. A view comes after the views that it is made from.
WITH RECURSIVE view AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relispopulated
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND pg_get_userbyid(c.relowner) = $1
), reads AS (
    SELECT DISTINCT r.ev_class AS reader, d.refobjid AS relation
      FROM pg_rewrite r
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
), level AS (
    SELECT oid, oid AS origin, 0 AS depth FROM view
    UNION
    SELECT reads.reader, level.origin, level.depth + 1
      FROM level JOIN reads ON reads.relation = level.oid
     WHERE level.depth < 20
)
SELECT v.name,
       v.relispopulated AND EXISTS (
           SELECT FROM pg_index i
            WHERE i.indrelid = v.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
              AND i.indpred IS NULL AND i.indexprs IS NULL) AS concurrently
  FROM view v
 ORDER BY (SELECT max(l.depth) FROM level l WHERE l.oid = v.oid), v.name
