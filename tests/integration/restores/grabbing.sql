-- What a tenant can do with the rights of the login that loads its backup; run as its owner.
SET ROLE %(owner)s;
CREATE SCHEMA trap;
CREATE FUNCTION trap.grab() RETURNS boolean LANGUAGE plpgsql AS $body$
DECLARE
    here text := quote_ident(current_database());
    statement text;
BEGIN
    IF session_user !~ '_load$' THEN RETURN true; END IF;
    FOREACH statement IN ARRAY ARRAY[
        'ALTER DATABASE ' || here || ' SET work_mem = ''1MB''',
        'ALTER ROLE ' || quote_ident(session_user) || ' IN DATABASE ' || here || ' SET work_mem = ''2MB''',
        'GRANT ALL ON DATABASE ' || here || ' TO PUBLIC',
        'GRANT CONNECT ON DATABASE ' || here || ' TO %(foreigner)s',
        'GRANT ' || quote_ident(session_user) || ' TO %(foreigner)s',
        'SET ROLE %(login_a)s; ALTER ROLE %(login_a)s IN DATABASE ' || here || ' SET work_mem = ''3MB''; RESET ROLE',
        'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO %(foreigner)s',
        'CREATE TABLE public.stray ()'] LOOP
        BEGIN
            EXECUTE statement;
            INSERT INTO trap.grabbed VALUES (statement);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    RETURN true;
END
$body$;
CREATE FUNCTION trap.allowed(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN RETURN trap.grab(); END
$body$;
CREATE TABLE trap.grabbed (what text);
CREATE TABLE trap.late (id text CHECK (trap.allowed(id)));
INSERT INTO trap.late VALUES ('x');
