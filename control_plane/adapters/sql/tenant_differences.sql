-- Every way in which this database differs from a tenant's database, one sentence each.
-- $1 owner  $2 app  $3 logins  $4 migrator  $5 backup  $6 auditor  $7 database owner
-- $8 placeholders  $9 reader
WITH here AS (
    SELECT oid, datdba, datistemplate, datallowconn, datconnlimit,
           coalesce(datacl, acldefault('d', datdba)) AS acl
      FROM pg_database WHERE datname = current_database()
), ours AS (
    SELECT name, r.oid
      FROM unnest(ARRAY[$1, $2, $4, $5, $6, $9] || $3::text[]) AS name
      LEFT JOIN pg_roles r ON r.rolname = name
), spaces AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), objects AS (
    SELECT format('%s.%s', n.nspname, c.relname) AS object, c.relowner AS owner,
           coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END,
                                         c.relowner)) AS acl, c.oid AS id, 'pg_class'::regclass AS class
      FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT format('schema %s', nspname), nspowner, coalesce(nspacl, acldefault('n', nspowner)), oid,
           'pg_namespace'::regclass
      FROM spaces
    UNION ALL
    SELECT p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)),
           p.oid, 'pg_proc'::regclass
      FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace
), own_objects AS (
    SELECT o.* FROM objects o
     WHERE NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = o.class AND d.objid = o.id AND d.deptype = 'e')
), access AS (
    SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(e.grantee)::text END AS who,
           e.privilege_type AS what, e.is_grantable AS grantable
      FROM here CROSS JOIN LATERAL aclexplode(here.acl) AS e
      -- The roles of a move come and go with it; those of no move are found elsewhere.
     WHERE (e.grantee = 0 OR pg_get_userbyid(e.grantee) !~ '^cp_[0-9a-z]{26}(_back)?_(in|out)$')
       -- The auditor is let in when there is something to seal.
       AND NOT (pg_get_userbyid(e.grantee) = $6 AND e.privilege_type = 'CONNECT'
                AND NOT e.is_grantable)
), wanted_access AS (
    SELECT * FROM (VALUES ($7::text, 'CREATE', false), ($7, 'TEMPORARY', false),
                          ($7, 'CONNECT', false), ($1, 'CREATE', false),
                          ($1, 'TEMPORARY', false), ($2, 'CONNECT', false),
                          ($4, 'CONNECT', false), ($5, 'CONNECT', false)) AS v (who, what, grantable)
), members AS (
    SELECT pg_get_userbyid(m.roleid)::text AS role, pg_get_userbyid(m.member)::text AS member
      FROM pg_auth_members m
     WHERE (m.roleid IN (SELECT oid FROM ours) OR m.member IN (SELECT oid FROM ours))
       -- An administrator that is no superuser is a member of whatever it made.
       AND pg_get_userbyid(m.member) <> session_user
       AND pg_get_userbyid(m.member) !~ '^cp_[0-9a-z]{26}(_back)?_(in|out)$'
), wanted_members AS (
    SELECT role, login AS member
      FROM unnest($3::text[]) AS login, unnest(ARRAY[$2, $9]::text[]) AS role
    UNION ALL SELECT $1, $4
), differences AS (
    SELECT format('role %s does not exist', name) AS difference FROM ours WHERE oid IS NULL
    UNION ALL
    SELECT format('role %s has a privileged attribute', r.rolname) FROM pg_roles r
     WHERE r.rolname IN (SELECT name FROM ours)
       AND (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication
            OR r.rolbypassrls AND r.rolname <> $5)
    UNION ALL
    SELECT format('role %s can log in', rolname) FROM pg_roles
     WHERE rolname IN ($1, $2, $6, $9) AND rolcanlogin
       -- The auditor may while somebody connects to seal, or was killed doing so.
       AND NOT (rolname = $6 AND coalesce(rolvaliduntil > clock_timestamp(), false))
    UNION ALL
    SELECT format('role %s inherits from the owner', rolname) FROM pg_roles
     WHERE rolname = $4 AND rolinherit
    UNION ALL
    (SELECT format('%s is a member of %s', member, role)
       FROM (SELECT * FROM members EXCEPT SELECT * FROM wanted_members) AS m)
    UNION ALL
    (SELECT format('%s is not a member of %s', member, role)
       FROM (SELECT * FROM wanted_members EXCEPT SELECT * FROM members) AS m)
    UNION ALL
    SELECT format('the database belongs to %s', pg_get_userbyid(datdba)) FROM here
     WHERE pg_get_userbyid(datdba) <> $7
    UNION ALL
    SELECT 'the database is a template' FROM here WHERE datistemplate
    UNION ALL
    (SELECT format('%s has %s on the database', who, what)
       FROM (SELECT * FROM access EXCEPT SELECT * FROM wanted_access) AS a)
    UNION ALL
    (SELECT format('%s lacks %s on the database', who, what)
       FROM (SELECT * FROM wanted_access EXCEPT SELECT * FROM access) AS a)
    UNION ALL
    SELECT format('%s owns %s object(s)', r.rolname, count(*))
      FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
     WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o'
       AND r.rolname = ANY (ARRAY[$2, $4, $5, $9] || $3::text[])
     GROUP BY r.rolname
    UNION ALL
    SELECT format('%s is still named by %s object(s)', r.rolname, count(*))
      FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid, here
     WHERE s.refclassid = 'pg_authid'::regclass AND s.dbid = here.oid
       AND r.rolname = ANY ($8::text[])
     GROUP BY r.rolname
    UNION ALL
    SELECT format('%s belongs to %s', object, pg_get_userbyid(owner)) FROM own_objects
     WHERE pg_get_userbyid(owner) NOT IN ($1, $6, $7)
    UNION ALL
    SELECT format('PUBLIC has %s on %s', string_agg(e.privilege_type, ', '), o.object)
      FROM own_objects o CROSS JOIN LATERAL aclexplode(o.acl) AS e
     WHERE e.grantee = 0 GROUP BY o.object
    UNION ALL
    SELECT format('%s cannot read %s', r.rolname, o.object)
      FROM own_objects o, pg_roles r
     WHERE r.rolname = $5 AND o.class = 'pg_class'::regclass
       AND NOT has_table_privilege(r.oid, o.id, 'SELECT')
    UNION ALL
    SELECT format('%s cannot read large object %s', $5::text, l.oid)
      FROM pg_largeobject_metadata l
     WHERE NOT EXISTS (SELECT FROM aclexplode(l.lomacl) AS e
                        WHERE pg_get_userbyid(e.grantee) = $5 AND e.privilege_type = 'SELECT')
    UNION ALL
    SELECT format('index %s is invalid', indexrelid::regclass) FROM pg_index
     WHERE NOT (indisvalid AND indisready AND indislive)
)
SELECT difference FROM differences ORDER BY 1
