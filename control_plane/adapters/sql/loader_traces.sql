-- Lists what takes away whatever the loader of this database, or what it loaded, could have set for it
-- or given away of it.
SELECT format('REVOKE ALL ON DATABASE %I FROM %s CASCADE', datname,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) AS statement
  FROM pg_database CROSS JOIN LATERAL (SELECT DISTINCT grantee FROM aclexplode(datacl)) AS e
 WHERE datname = current_database() AND grantee <> datdba
UNION ALL
SELECT format('ALTER ROLE %I IN DATABASE %I RESET ALL', pg_get_userbyid(setrole), current_database())
  FROM pg_db_role_setting
 WHERE setrole <> 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
