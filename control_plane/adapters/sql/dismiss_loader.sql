-- Lists what takes away again whatever a scratch database was lent while it was loaded, and whatever
-- what was loaded could have given away or set. $1 those who may own something
SELECT format('REVOKE ALL ON DATABASE %I FROM %s', datname,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) AS statement
  FROM pg_database CROSS JOIN LATERAL (SELECT DISTINCT grantee FROM aclexplode(datacl)) AS e
 WHERE datname = current_database() AND grantee <> datdba
UNION ALL
SELECT format('ALTER ROLE %I IN DATABASE %I RESET ALL', pg_get_userbyid(setrole), current_database())
  FROM pg_db_role_setting
 WHERE setrole <> 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT format('REVOKE ALL ON FOREIGN DATA WRAPPER %I FROM %s', fdwname,
              (SELECT string_agg(quote_ident(who), ', ') FROM unnest($1::text[]) AS who))
  FROM pg_foreign_data_wrapper
