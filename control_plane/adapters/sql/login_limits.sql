-- A login may change its own settings (S-06): start from nothing, then set what is wanted.
DO $body$
DECLARE place name;
BEGIN
    FOR place IN SELECT d.datname FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                  WHERE s.setrole = to_regrole('{login}') LOOP
        EXECUTE format('ALTER ROLE {login} IN DATABASE %I RESET ALL', place);
    END LOOP;
END
$body$;
ALTER ROLE {login} RESET ALL;
ALTER ROLE {login} CONNECTION LIMIT {connections};
ALTER ROLE {login} SET search_path = public;
ALTER ROLE {login} SET statement_timeout = {statement_timeout_ms};
ALTER ROLE {login} SET idle_in_transaction_session_timeout = {idle_in_transaction_ms};
ALTER ROLE {login} SET lock_timeout = {lock_timeout_ms};
