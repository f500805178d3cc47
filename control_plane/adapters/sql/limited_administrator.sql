-- Makes {administrator} the administrator of a server for Tenantry: no superuser, and nothing that it
-- does not need. Run it in the database postgres of Postgres 16 or newer, as a superuser, as often as
-- you like; then give the login its password, for example with \password in psql.
DO $body$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {administrator_literal}) THEN
        CREATE ROLE {administrator};
    END IF;
END $body$;
-- To make databases and roles; to stream what changes while a tenant moves; to give the backup
-- logins of tenants what reads past row security.
ALTER ROLE {administrator} LOGIN NOSUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS;
-- To watch load, to end sessions, to get in when a server is full, to receive what changes.
GRANT pg_monitor, pg_signal_backend, pg_use_reserved_connections, pg_create_subscription
    TO {administrator};
-- To begin the way back of a move at the right place; to name the moment before a migration.
GRANT EXECUTE ON FUNCTION pg_replication_origin_advance(text, pg_lsn), pg_create_restore_point(text)
    TO {administrator};
-- To limit the temporary files of tenants; to dump large objects of any owner; to read errors.
GRANT SET ON PARAMETER temp_file_limit, lo_compat_privileges, lc_messages TO {administrator};
-- Any role may connect to these two until this is said.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE postgres TO {administrator};
-- To find noisy tenants, where the server counts statements.
DO $body$ BEGIN
    IF 'pg_stat_statements' = ANY (string_to_array(
           replace(current_setting('shared_preload_libraries'), ' ', ''), ',')) THEN
        CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public;
    END IF;
END $body$;
-- To go on with what an administrator before this one has made.
DO $body$
DECLARE made name;
BEGIN
    FOR made IN SELECT rolname FROM pg_roles
                 WHERE rolname ~ '^(cp_dbowner$|cp_template_|(t|cp)_[0-9a-z]{{26}}_)' LOOP
        EXECUTE format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT TRUE, SET TRUE',
                       made, {administrator_literal});
    END LOOP;
END $body$;
