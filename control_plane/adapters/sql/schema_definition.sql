-- What the schema of this database is, as facts (kind, name, text), free of whatever differs between
-- two databases of one schema: OIDs, positions of columns, names of the tenant's roles, contents.
-- $1 and $2: roles, and the words that stand for them.
-- Written for a session that has read no catalog yet, where every join and every operator costs
-- more than the rows do: names come from casts to reg…, filters from arrays, flags are not spelt out.
-- What people make has OIDs from 16384 (FirstNormalObjectId in access/transam.h).
WITH space AS MATERIALIZED (
    SELECT oid, quote_ident(nspname) AS name, nspowner AS owner,
           coalesce(nspacl, acldefault('n', nspowner)) AS acl
      FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|cp_meta$)'
), extra AS MATERIALIZED (
    -- Members of an extension are its own affair.
    SELECT objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
), relation AS MATERIALIZED (
    SELECT oid, oid::regclass::text AS name, relowner AS owner,
           CASE WHEN relispartition THEN 'partition' WHEN relkind IN ('v', 'm') THEN 'view'
                WHEN relkind = 'S' THEN 'sequence' WHEN relkind = 'c' THEN 'type'
                ELSE 'table' END AS kind,
           format('%s|%s|%s|%s|%s|%s|%s', relkind, relpersistence, relrowsecurity,
                  relforcerowsecurity, relreplident, reloptions,
                  CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid)
                       WHEN relkind = 'p' THEN pg_get_partkeydef(oid) END) AS text,
           coalesce(relacl, CASE relkind WHEN 'S' THEN acldefault('s', relowner)
                                         ELSE acldefault('r', relowner) END) AS acl
      FROM pg_class
     WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
       AND relnamespace = ANY (ARRAY(SELECT oid FROM space))
       AND oid NOT IN (SELECT objid FROM extra)
), fact (kind, name, text, owner, acl) AS MATERIALIZED (
    SELECT 'schema', name, '', owner, acl FROM space
    UNION ALL
    SELECT kind, name, text, owner, acl FROM relation WHERE kind <> 'partition'
    UNION ALL
    -- Partitions come and go with the months: all of one table go by one name, and differ or not.
    SELECT kind, pg_partition_root(oid)::regclass || '/*',
           format('%s|%s|%s', text,
                  (SELECT string_agg(format('%s %s %s', tgname, tgenabled, tgfoid::regproc), ', '
                                     ORDER BY tgname)
                     FROM pg_trigger WHERE tgrelid = r.oid AND NOT tgisinternal),
                  (SELECT count(*) FROM pg_index i WHERE i.indrelid = r.oid AND NOT indisvalid)),
           owner, acl
      FROM relation r WHERE kind = 'partition'
    UNION ALL
    SELECT 'column', attrelid::regclass || '.' || quote_ident(attname),
           format('%s|%s|%s|%s|%s|%s|%s', attnotnull, attidentity, attgenerated, attcompression,
                  attcollation::regcollation, format_type(atttypid, atttypmod),
                  -- Without a relation it is not opened; only generated columns name columns.
                  pg_get_expr(adbin, CASE attgenerated WHEN '' THEN 0 ELSE adrelid END)),
           0, attacl
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE attrelid = ANY (ARRAY(SELECT oid FROM relation WHERE kind <> 'partition'))
       AND attnum > 0 AND NOT attisdropped
       AND (attacl IS NOT NULL
            OR attrelid = ANY (ARRAY(SELECT oid FROM relation WHERE kind IN ('table', 'type'))))
    UNION ALL
    -- Postgres 18 has constraints for NOT NULL too: the column says it, unless it is not valid.
    SELECT 'constraint', CASE conrelid WHEN 0 THEN contypid::regtype::text
                                       ELSE conrelid::regclass::text END || '.' || quote_ident(conname),
           pg_get_constraintdef(oid), 0, NULL
      FROM pg_constraint
     WHERE (conrelid = ANY (ARRAY(SELECT oid FROM relation WHERE kind <> 'partition'))
            OR contypid >= 16384)
       AND conparentid = 0 AND (contype <> 'n' OR NOT convalidated)
    UNION ALL
    -- That of a primary key is described by its constraint.
    SELECT 'index', indexrelid::regclass::text,
           format('%s|%s|%s|%s|%s', indisvalid, indisready, indislive, indisreplident,
                  CASE WHEN NOT indisprimary THEN pg_get_indexdef(indexrelid) END), 0, NULL
      FROM pg_index
     WHERE indrelid = ANY (ARRAY(SELECT oid FROM relation WHERE kind <> 'partition'))
    UNION ALL
    -- Those of constraints have names with OIDs, and are worth a word only when they are off.
    SELECT 'trigger', tgrelid::regclass || '.' || CASE WHEN tgisinternal THEN 'constraint'
                                                       ELSE quote_ident(tgname) END,
           format('%s|%s', tgenabled, CASE WHEN tgisinternal THEN tgfoid::regproc::text
                                           ELSE pg_get_triggerdef(oid) END), 0, NULL
      FROM pg_trigger
     WHERE tgrelid = ANY (ARRAY(SELECT oid FROM relation WHERE kind <> 'partition'))
       AND (NOT tgisinternal OR tgenabled <> 'O')
    UNION ALL
    SELECT 'rule', ev_class::regclass || '.' || quote_ident(rulename),
           format('%s|%s', ev_enabled, pg_get_ruledef(oid)), 0, NULL
      FROM pg_rewrite WHERE oid >= 16384 AND rulename <> '_RETURN'
       AND ev_class = ANY (ARRAY(SELECT oid FROM relation))
    UNION ALL
    SELECT 'function', oid::regprocedure::text,
           CASE prokind
           WHEN 'a' THEN (SELECT format('AGGREGATE %s %s %s %s', aggtransfn, aggfinalfn,
                                        aggtranstype::regtype, agginitval)
                            FROM pg_aggregate WHERE aggfnoid = p.oid)
           ELSE pg_get_functiondef(oid) END, proowner, coalesce(proacl, acldefault('f', proowner))
      FROM pg_proc p
     WHERE oid >= 16384 AND pronamespace = ANY (ARRAY(SELECT oid FROM space))
       AND oid NOT IN (SELECT objid FROM extra)
    UNION ALL
    SELECT 'sequence', seqrelid::regclass::text,
           format('%s from %s by %s between %s and %s, cache %s, cycle %s', seqtypid::regtype,
                  seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle), 0, NULL
      FROM pg_sequence WHERE seqrelid = ANY (ARRAY(SELECT oid FROM relation))
    UNION ALL
    SELECT 'type', oid::regtype::text,
           CASE typtype
           WHEN 'd' THEN format('DOMAIN %s|%s|%s', format_type(typbasetype, typtypmod), typnotnull,
                                typdefault)
           WHEN 'e' THEN (SELECT 'ENUM ' || string_agg(quote_literal(enumlabel), ', '
                                                       ORDER BY enumsortorder)
                            FROM pg_enum WHERE enumtypid = t.oid)
           WHEN 'r' THEN (SELECT 'RANGE ' || rngsubtype::regtype FROM pg_range WHERE rngtypid = t.oid)
           ELSE 'BASE TYPE' END, typowner, coalesce(typacl, acldefault('T', typowner))
      FROM pg_type t
     WHERE oid >= 16384 AND (typtype IN ('d', 'e', 'r') OR typtype = 'b' AND typelem = 0)
       AND typnamespace = ANY (ARRAY(SELECT oid FROM space))
       AND oid NOT IN (SELECT objid FROM extra)
    UNION ALL
    SELECT 'policy', polrelid::regclass || '.' || quote_ident(polname),
           format('%s|%s|%s|%s', polpermissive, polcmd,
                  (SELECT string_agg(coalesce(($2::text[])[array_position($1::text[], who)], who), ', '
                                     ORDER BY who COLLATE "C")
                     FROM unnest(ARRAY(SELECT CASE role WHEN 0 THEN 'PUBLIC'
                                              ELSE pg_get_userbyid(role)::text END
                                         FROM unnest(polroles) AS role)) AS who),
                  concat_ws(' ', 'USING ' || pg_get_expr(polqual, polrelid),
                            'WITH CHECK ' || pg_get_expr(polwithcheck, polrelid))), 0, NULL
      FROM pg_policy
    UNION ALL
    -- Without its version: that follows the packages of the server, not the template.
    SELECT 'extension', quote_ident(extname), extnamespace::regnamespace::text, 0, NULL
      FROM pg_extension
    UNION ALL
    SELECT 'event trigger', quote_ident(evtname),
           format('%s|%s|%s|%s', evtenabled, evtevent, evttags, evtfoid::regproc), evtowner, NULL
      FROM pg_event_trigger
    UNION ALL
    SELECT 'statistics', stxnamespace::regnamespace || '.' || quote_ident(stxname),
           pg_get_statisticsobjdef(oid), stxowner, NULL
      FROM pg_statistic_ext WHERE stxnamespace = ANY (ARRAY(SELECT oid FROM space))
    UNION ALL
    -- One that replaces the built-in default is told by what it adds to it and takes from it.
    SELECT CASE WHEN given THEN 'default privileges' ELSE 'default privileges withheld' END,
           format('for %s in %s on %s',
                  coalesce(($2::text[])[array_position($1::text[], maker)], maker), place, what),
           NULL, 0,
           CASE WHEN given THEN ARRAY(SELECT i FROM unnest(acl) AS i WHERE NOT i = ANY (built_in))
                ELSE ARRAY(SELECT i FROM unnest(built_in) AS i WHERE NOT i = ANY (acl)) END
      FROM (SELECT pg_get_userbyid(defaclrole)::text AS maker, defaclobjtype AS what,
                   CASE defaclnamespace WHEN 0 THEN 'any schema'
                                        ELSE defaclnamespace::regnamespace::text END AS place,
                   defaclacl AS acl,
                   CASE defaclnamespace WHEN 0 THEN
                       acldefault(CASE defaclobjtype WHEN 'S' THEN 's'::"char" ELSE defaclobjtype END,
                                  defaclrole) ELSE '{}' END AS built_in
              FROM pg_default_acl) AS d, (VALUES (true), (false)) AS side (given)
    UNION ALL
    -- Whatever else is in a schema: collations, operators, text search configurations.
    SELECT 'other', pg_describe_object(classid, objid, 0), '', 0, NULL
      FROM pg_depend
     WHERE refclassid = 'pg_namespace'::regclass AND refobjid = ANY (ARRAY(SELECT oid FROM space))
       AND classid <> ALL ('{pg_class,pg_proc,pg_type,pg_statistic_ext,pg_default_acl,pg_extension,'
                           'pg_publication_namespace}'::regclass[])
       AND objid NOT IN (SELECT objid FROM extra)
), line (kind, name, text) AS (
    -- varchar IN ('a', 'b') casts the whole list to text; once dumped and restored, each of its items.
    SELECT kind, name,
           CASE WHEN strpos(text, '::character varying') = 0 THEN text
           ELSE regexp_replace(
                    regexp_replace(text, $re$\(('(?:[^']|'')*'::character varying)\)::text$re$, '\1', 'g'),
                    $re$\((ARRAY\[(?:'(?:[^']|'')*'::character varying(?:, )?)+\])\)::text\[\]$re$,
                    '\1', 'g') END
      FROM fact WHERE text IS NOT NULL
    UNION ALL
    -- One line for each role that has privileges, and one (O) for the owner. The backup role's are
    -- ours; who granted a privilege makes no difference.
    SELECT 'access', f.kind || ' ' || f.name,
           coalesce(($2::text[])[array_position($1::text[], split_part(item, '=', 1))],
                    split_part(item, '=', 1))
           || '=' || split_part(split_part(item, '=', 2), '/', 1)
      FROM fact f
     CROSS JOIN unnest(f.acl::text[] || CASE WHEN f.owner <> 0
                                             THEN pg_get_userbyid(f.owner) || '=O' END) AS item
     WHERE split_part(item, '=', 1) <> coalesce(($1::text[])[array_position($2::text[], 'backup')], '-')
)
