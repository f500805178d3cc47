-- The login that loads one backup into one scratch database, and may enter no other. Made anew each
-- time: what was loaded before could have given its rights away.
-- BYPASSRLS: keys are checked over tables whose owner is bound by policies (FORCE).
{reach}
DROP ROLE IF EXISTS {loader};
CREATE ROLE {loader} NOLOGIN INHERIT {past_policies} CONNECTION LIMIT 16;
ALTER ROLE {loader} SET search_path = pg_catalog;
-- What is lost in a crash is loaded again from the start.
ALTER ROLE {loader} SET synchronous_commit = off;
ALTER ROLE {loader} SET maintenance_work_mem = '256MB';
-- The sessions of a program that was killed end by themselves.
ALTER ROLE {loader} SET client_connection_check_interval = '1s';
ALTER ROLE {loader} SET jit = off;
-- What the archive makes belongs to these; large objects to whoever wrote them.
GRANT {owner}, {auditor}, {app}, {login_a}, {login_b}, {reader} TO {loader};
