{reach}
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
        EXECUTE 'ALTER ROLE ' || wanted || ' NOLOGIN PASSWORD NULL {attributes}';
    END LOOP;
    -- S-01: any role may connect to these two until this is said. Where they are somebody else's,
    -- preflight tells.
    FOR place IN SELECT datname FROM pg_database
                  WHERE datname IN ('postgres', 'template1') AND pg_has_role(datdba, 'USAGE') LOOP
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', place);
    END LOOP;
    -- Where the server counts statements, administrators can ask for them; where this one may not
    -- make the extension, preflight says who may.
    IF 'pg_stat_statements' = ANY (string_to_array(
           replace(current_setting('shared_preload_libraries'), ' ', ''), ','))
       AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') THEN
        BEGIN
            CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public;
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END IF;
END
$body$;
