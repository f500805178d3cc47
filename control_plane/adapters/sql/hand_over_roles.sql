-- Lists, in order, the statements that hand a database to a tenant. $1 and $2 are roles that it
-- belongs to now (placeholders of the template, or another tenant's) and the tenant's roles that take
-- their place, in pairs; $3 is the backup role, $4 those of the tenant's roles that own things.
-- Only objects of this database are named, so adoptions run beside each other. DROP OWNED would
-- be shorter, but it also reaches shared objects: the grants on a template that is being built.
WITH mapping AS (
    SELECT r.oid AS old_role, r.rolname AS old, pair.new
      FROM unnest($1::text[], $2::text[]) AS pair (old, new)
      JOIN pg_roles r ON r.rolname = pair.old
), spaces AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), privileged AS (
    SELECT 'SCHEMA' AS kind, format('%I', nspname) AS object, NULL::name AS part,
           nspowner AS owner, nspacl AS acl
      FROM spaces
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
           format('%I.%I', n.nspname, c.relname), NULL, c.relowner, c.relacl
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    UNION ALL
    SELECT 'TABLE', format('%I.%I', n.nspname, c.relname), a.attname, c.relowner, a.attacl
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'ROUTINE', oid::regprocedure::text, NULL, proowner, proacl FROM pg_proc
    UNION ALL
    SELECT 'TYPE', oid::regtype::text, NULL, typowner, typacl FROM pg_type
    UNION ALL
    SELECT 'LANGUAGE', format('%I', lanname), NULL, lanowner, lanacl FROM pg_language
    UNION ALL
    SELECT 'FOREIGN DATA WRAPPER', format('%I', fdwname), NULL, fdwowner, fdwacl
      FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'FOREIGN SERVER', format('%I', srvname), NULL, srvowner, srvacl FROM pg_foreign_server
    UNION ALL
    SELECT 'LARGE OBJECT', oid::text, NULL, lomowner, lomacl FROM pg_largeobject_metadata
), held AS (
    -- An owner's own entry follows the object; what was given to others is replayed, and what they
    -- passed on, as if the owner had given it: a superuser speaks for the owner, anybody else for
    -- whichever of its roles may give, unless it says as whom.
    SELECT p.kind, p.object, p.part, m.old, e.is_grantable,
           CASE WHEN current_setting('is_superuser') = 'off' AND pg_has_role(p.owner, 'MEMBER')
                THEN format('SET LOCAL ROLE %I; ', coalesce(o.new, pg_get_userbyid(p.owner)))
                ELSE '' END AS giver,
           coalesce(quote_ident(m.new), CASE e.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE quote_ident(pg_get_userbyid(e.grantee)) END) AS new,
           string_agg(e.privilege_type || coalesce(' (' || quote_ident(p.part) || ')', ''), ', ') AS what
      FROM privileged p
     CROSS JOIN LATERAL aclexplode(p.acl) AS e
      LEFT JOIN mapping m ON m.old_role = e.grantee
      LEFT JOIN mapping o ON o.old_role = p.owner
     WHERE p.acl IS NOT NULL AND e.grantee <> p.owner
       AND (m.old IS NOT NULL
            OR e.grantor <> p.owner AND e.grantor IN (SELECT old_role FROM mapping))
     GROUP BY p.kind, p.object, p.part, p.owner, o.new, m.old, m.new, e.grantee, e.is_grantable
), defaults AS (
    SELECT m.old, m.new, d.defaclnamespace = 0 AS everywhere, d.defaclacl,
           acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END,
                      d.defaclrole) AS hardwired,
           CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
                WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS'
                WHEN 'L' THEN 'LARGE OBJECTS' END AS kind,
           coalesce(' IN SCHEMA ' || quote_ident(n.nspname), '') AS place
      FROM pg_default_acl d
      JOIN mapping m ON m.old_role = d.defaclrole
      LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
), default_entries AS (
    SELECT d.old, d.new, d.place, d.kind, e.which, e.privilege_type, e.is_grantable,
           CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(e.grantee)::text END AS grantee,
           coalesce(m.new, CASE e.grantee WHEN 0 THEN 'PUBLIC'
                                ELSE pg_get_userbyid(e.grantee)::text END) AS new_grantee
      FROM defaults d
     CROSS JOIN LATERAL (
           SELECT 'set' AS which, (aclexplode(d.defaclacl)).*
           UNION ALL
           SELECT 'hardwired', (aclexplode(d.hardwired)).* WHERE d.everywhere) AS e
      LEFT JOIN mapping m ON m.old_role = e.grantee
), guests AS (
    -- Those who are to own something in a schema of somebody else, and may not create there.
    SELECT DISTINCT n.nspname, m.new
      FROM pg_shdepend s
      JOIN mapping m ON m.old_role = s.refobjid
      JOIN LATERAL (SELECT relnamespace AS space FROM pg_class
                     WHERE s.classid = 'pg_class'::regclass AND oid = s.objid
                    UNION ALL
                    SELECT pronamespace FROM pg_proc
                     WHERE s.classid = 'pg_proc'::regclass AND oid = s.objid
                    UNION ALL
                    SELECT typnamespace FROM pg_type
                     WHERE s.classid = 'pg_type'::regclass AND oid = s.objid) AS o ON true
      JOIN spaces n ON n.oid = o.space AND n.nspowner <> m.old_role
     WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o'
       AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND NOT has_schema_privilege(m.new, n.oid, 'CREATE')
), statements AS (
    -- Whoever becomes an owner must be able to create in the schema, at that moment: its new owner
    -- can, and others for as long as it takes.
    SELECT 1 AS step, format('ALTER SCHEMA %I OWNER TO %I', nspname, new) AS statement
      FROM spaces JOIN mapping ON old_role = nspowner
    UNION ALL
    SELECT 2, format('GRANT CREATE ON SCHEMA %I TO %I', nspname, new) FROM guests
    UNION ALL
    SELECT 4, format('REVOKE CREATE ON SCHEMA %I FROM %I', nspname, new) FROM guests
    UNION ALL
    SELECT 3, format('REASSIGN OWNED BY %I TO %I', old, new) FROM mapping
     WHERE EXISTS (SELECT FROM pg_shdepend s
                    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = old_role
                      AND s.deptype = 'o' AND s.dbid = (SELECT oid FROM pg_database
                                                         WHERE datname = current_database()))
    UNION ALL
    SELECT 3, format('CREATE USER MAPPING FOR %I SERVER %I; DROP USER MAPPING FOR %I SERVER %2$I',
                     new, srvname, old)
      FROM pg_user_mappings
      JOIN mapping ON old_role = umuser
    UNION ALL
    SELECT 5, giver || format('GRANT %s ON %s %s TO %s%s', what, kind, object, new,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
           || CASE giver WHEN '' THEN '' ELSE '; RESET ROLE' END
      FROM held
    UNION ALL
    SELECT DISTINCT 6, giver || format('REVOKE ALL%s ON %s %s FROM %I CASCADE',
                              coalesce(' (' || quote_ident(part) || ')', ''), kind, object, old)
           || CASE giver WHEN '' THEN '' ELSE '; RESET ROLE' END
      FROM held WHERE old IS NOT NULL
    UNION ALL
    SELECT 7, format('ALTER POLICY %I ON %s TO %s', p.polname, p.polrelid::regclass,
                     (SELECT string_agg(CASE WHEN role = 0 THEN 'PUBLIC'
                             ELSE quote_ident(coalesce(m.new, pg_get_userbyid(role))) END, ', ')
                        FROM unnest(p.polroles) AS role
                        LEFT JOIN mapping m ON m.old_role = role))
      FROM pg_policy p
     WHERE EXISTS (SELECT FROM mapping WHERE old_role = ANY (p.polroles))
    UNION ALL
    -- A default without a schema replaces the built-in one: take all of that away first.
    SELECT 8, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE ALL ON %s FROM PUBLIC, %I',
                     new, kind, new)
      FROM defaults WHERE everywhere
    UNION ALL
    SELECT 9, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s GRANT %s ON %s TO %s%s', new, place,
                     string_agg(privilege_type, ', '), kind,
                     CASE new_grantee WHEN 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(new_grantee) END,
                     CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM default_entries WHERE which = 'set'
     GROUP BY new, place, kind, new_grantee, is_grantable
    UNION ALL
    SELECT 10, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL ON %s FROM %s', old, place,
                     kind, CASE grantee WHEN 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(grantee) END)
      FROM default_entries WHERE which = 'set' GROUP BY old, place, kind, grantee
    UNION ALL
    SELECT 11, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s ON %s TO %s', old,
                     string_agg(privilege_type, ', '), kind,
                     CASE grantee WHEN 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(grantee) END)
      FROM default_entries WHERE which = 'hardwired' GROUP BY old, kind, grantee
    UNION ALL
    SELECT 12, format('GRANT USAGE ON SCHEMA %I TO %I; GRANT SELECT ON ALL TABLES IN SCHEMA %I TO '
                     '%I; GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO %I',
                     nspname, $3::text, nspname, $3::text, nspname, $3::text)
      FROM spaces
    UNION ALL
    SELECT 12, format('GRANT SELECT ON LARGE OBJECT %s TO %I', oid, $3::text)
      FROM pg_largeobject_metadata
    UNION ALL
    SELECT 13, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s TO %I', maker, what, $3::text)
      FROM unnest($4::text[]) AS maker
     CROSS JOIN unnest(ARRAY['USAGE ON SCHEMAS', 'SELECT ON TABLES', 'SELECT ON SEQUENCES']) AS what
)
SELECT statement FROM statements ORDER BY step, statement
