-- A mark of this database's schema, cheap enough to be taken in every migration: names, types,
-- nullability, keys and their actions, validity, triggers and whether they fire, what functions do.
-- The fingerprint (schema_definition.sql) says the rest, at several times the cost: privileges,
-- expressions, texts of views, schemas. Sums of hashes need no sorting; nothing is deparsed and no
-- name looked up, for which a new session would pay. What people make has OIDs from 16384, which
-- differ between databases; a type of theirs counts as just that. Partitions come and go with the
-- months and do not count.
WITH relation AS MATERIALIZED (
    SELECT oid, relname AS name, relkind AS kind,
           concat(relpersistence, relrowsecurity, relforcerowsecurity, relchecks) AS flags
      FROM pg_class
     WHERE oid >= 16384 AND NOT relispartition AND relkind NOT IN ('c', 't')
       AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('cp_meta', 'pg_toast'))
)
SELECT encode(sha256(convert_to(concat_ws('|',
    (SELECT sum(hashtextextended(name || flags, ascii(kind::text))) FROM relation),
    (SELECT sum(hashtextextended(
                concat(name, '.', attname, attnotnull, attidentity, attgenerated, atthasdef),
                least(atttypid::bigint, 16384) + atttypmod))
       FROM relation JOIN pg_attribute ON attrelid = relation.oid
      WHERE attrelid >= 16384 AND attnum > 0 AND NOT attisdropped),
    (SELECT sum(hashtextextended(concat(name, '.', indisunique, indisprimary, indisvalid,
                                        indisready, indpred IS NULL), 1))
       FROM relation JOIN pg_index ON indexrelid = relation.oid),
    (SELECT sum(hashtextextended(concat(name, '.', conname, convalidated, confdeltype,
                                        confupdtype), 2))
       FROM relation JOIN pg_constraint ON conrelid = relation.oid WHERE contype <> 'n'),
    (SELECT sum(hashtextextended(concat(name, '.', tgname, tgenabled), tgtype::bigint))
       FROM relation JOIN pg_trigger ON tgrelid = relation.oid WHERE NOT tgisinternal),
    (SELECT sum(hashtextextended(concat(proname, prosecdef, provolatile, proconfig, prosrc),
                                 pronargs::bigint))
       FROM pg_proc WHERE oid >= 16384)), 'UTF8')), 'hex')
