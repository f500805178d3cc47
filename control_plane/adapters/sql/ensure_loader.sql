-- The login that loads one backup into one scratch database, and may enter no other.
DO $body$
BEGIN
    IF to_regrole('{loader}') IS NULL THEN
        CREATE ROLE {loader} NOLOGIN;
    END IF;
END
$body$;
ALTER ROLE {loader} NOLOGIN PASSWORD NULL INHERIT
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 16;
ALTER ROLE {loader} RESET ALL;
ALTER ROLE {loader} SET search_path = pg_catalog;
-- What is lost in a crash is loaded again from the start.
ALTER ROLE {loader} SET synchronous_commit = off;
ALTER ROLE {loader} SET maintenance_work_mem = '256MB';
ALTER ROLE {loader} SET client_connection_check_interval = '1s';
ALTER ROLE {loader} SET jit = off;
-- The words by which a full disk is told from other errors.
ALTER ROLE {loader} SET lc_messages = 'C';
GRANT {owner}, {auditor} TO {loader};
