-- Whoever has a say in this database and should not, one sentence each. $1 the tenant's roles
-- $2 the role that owns databases
WITH here AS (
    SELECT oid, datdba, coalesce(datacl, acldefault('d', datdba)) AS acl
      FROM pg_database WHERE datname = current_database()
), ours AS (
    SELECT oid FROM pg_roles WHERE rolname = ANY ($1::text[])
)
SELECT format('the database belongs to %s', pg_get_userbyid(datdba)) AS problem FROM here
 WHERE pg_get_userbyid(datdba) <> $2
UNION ALL
SELECT format('%s has %s on the database',
              CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(e.grantee)::text END, e.privilege_type)
  FROM here CROSS JOIN LATERAL aclexplode(here.acl) AS e
 WHERE e.grantee <> datdba AND e.grantee NOT IN (SELECT oid FROM ours)
UNION ALL
-- What extensions consist of is the administrator's.
SELECT format('%s is named by %s object(s)', r.rolname, count(*))
  FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid, here
 WHERE s.refclassid = 'pg_authid'::regclass AND s.dbid = here.oid
   AND r.oid NOT IN (SELECT oid FROM ours) AND r.rolname NOT IN ($2, session_user)
 GROUP BY r.rolname
UNION ALL
-- Other backups of the tenant may be loaded at this moment, each by a login that enters no database
-- but its own. An administrator that is no superuser is a member of whatever it made.
SELECT format('%s is a member of %s', pg_get_userbyid(m.member), pg_get_userbyid(m.roleid))
  FROM pg_auth_members m
 WHERE m.roleid IN (SELECT oid FROM ours) AND m.member NOT IN (SELECT oid FROM ours)
   AND pg_get_userbyid(m.member) <> session_user
   AND pg_get_userbyid(m.member) !~ '^t_[0-9a-z]{26}_load$'
UNION ALL
SELECT format('index %s is invalid', indexrelid::regclass) FROM pg_index
 WHERE NOT (indisvalid AND indisready AND indislive)
 ORDER BY 1
