DO $body$
DECLARE wanted text;
        place name;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('cp:bootstrap', 0));
    FOREACH wanted IN ARRAY ARRAY['{owner}', '{template_owner}', '{template_app}',
                                  '{template_auditor}', '{template_reader}'] LOOP
        IF to_regrole(wanted) IS NULL THEN
            EXECUTE 'CREATE ROLE ' || wanted || ' NOLOGIN';
        END IF;
        EXECUTE 'ALTER ROLE ' || wanted || ' NOLOGIN PASSWORD NULL NOSUPERUSER NOCREATEDB '
             || 'NOCREATEROLE NOREPLICATION NOBYPASSRLS';
    END LOOP;
    -- S-01: any role may connect to these two until this is said.
    FOR place IN SELECT datname FROM pg_database
                  WHERE datname IN ('postgres', 'template1') LOOP
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', place);
    END LOOP;
    -- Where the server counts statements, administrators can ask for them.
    IF 'pg_stat_statements' = ANY (string_to_array(
           replace(current_setting('shared_preload_libraries'), ' ', ''), ','))
       AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') THEN
        CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public;
    END IF;
END
$body$;
