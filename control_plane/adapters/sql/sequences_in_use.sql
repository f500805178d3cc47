-- Every sequence that fills a column by itself, and the column, where its highest value is in an
-- index: it owns the sequence, or its default calls it. Those that count up and never begin anew.
WITH used AS (
    SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS attribute
      FROM pg_depend d
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
       AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    UNION
    SELECT d.refobjid, f.adrelid, f.adnum
      FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
     WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
)
SELECT format('%I.%I', n.nspname, c.relname) AS sequence,
       format('%I.%I', t.nspname, r.relname) AS relation, quote_ident(a.attname) AS attribute
  FROM used u
  JOIN pg_class c ON c.oid = u.sequence AND c.relkind = 'S'
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_sequence s ON s.seqrelid = c.oid AND s.seqincrement > 0 AND NOT s.seqcycle
  JOIN pg_class r ON r.oid = u.relation AND r.relkind IN ('r', 'p')
  JOIN pg_namespace t ON t.oid = r.relnamespace
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = u.attribute AND NOT a.attisdropped
   AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
 WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cp_meta')
   AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisvalid
                AND i.indpred IS NULL AND i.indkey[0] = a.attnum)
 ORDER BY 1, 2, 3
