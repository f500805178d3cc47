-- What a tenant can leave in its database for whoever restores it; run as its owner. Sequences
-- tell what was seen, for they keep it through every rollback.
SET ROLE %(owner)s;
CREATE SCHEMA trap;
CREATE SEQUENCE trap.calls;
CREATE SEQUENCE trap.powerful;
CREATE SEQUENCE trap.escapes;
CREATE TABLE trap.seen (who name, session name, place text);

-- Everything a tenant would like to do, tried; what works is counted.
CREATE FUNCTION trap.try(statement text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE statement;
    PERFORM nextval('trap.escapes');
    INSERT INTO trap.seen VALUES (current_user, session_user, statement);
EXCEPTION WHEN OTHERS THEN NULL;
END
$body$;
CREATE FUNCTION trap.spring(place text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    IF to_regclass('trap.calls') IS NULL OR to_regclass('trap.seen') IS NULL THEN
        RETURN;  -- constants are folded as soon as a table is made
    END IF;
    PERFORM nextval('trap.calls');
    IF current_user ~ '^cp_' OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        PERFORM nextval('trap.powerful');
    END IF;
    INSERT INTO trap.seen VALUES (current_user, session_user, place);
    PERFORM trap.try(statement) FROM unnest(ARRAY[
        'SET ROLE tenantry_admin', 'SET SESSION AUTHORIZATION tenantry_admin', 'SET ROLE cp_dbowner',
        'CREATE ROLE t_intruder SUPERUSER', 'ALTER ROLE ' || quote_ident(session_user) || ' SUPERUSER',
        'ALTER ROLE tenantry_admin PASSWORD NULL', 'CREATE EXTENSION file_fdw',
        'COPY (SELECT 1) TO PROGRAM ''touch %(mark)s''', 'COPY (SELECT 1) TO ''%(mark)s''',
        'SELECT pg_catalog.pg_read_file(''PG_VERSION'')', 'SELECT * FROM pg_catalog.pg_authid',
        'SELECT * FROM public.dblink(''host=127.0.0.1 port=%(port)s user=tenantry_admin dbname=postgres'', '
        '''SELECT 1'') AS t (n integer)',
        'CREATE DATABASE t_intruder', 'SET session_replication_role = replica',
        'SELECT pg_catalog.lo_import(''/etc/passwd'')', 'LOAD ''auto_explain''']) AS statement;
END
$body$;
-- Declared immutable, calling what is not.
CREATE FUNCTION trap.marked(value text, place text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN PERFORM trap.spring(place); RETURN value; END
$body$;
CREATE FUNCTION trap.allowed(value text, place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN PERFORM trap.spring(place); RETURN true; END
$body$;

CREATE DOMAIN trap.sprung AS text CHECK (trap.allowed(VALUE, 'domain'));
CREATE TABLE trap.bait (
    id integer PRIMARY KEY,
    plain text DEFAULT trap.marked('x', 'default'),
    domained trap.sprung,
    generated text GENERATED ALWAYS AS (trap.marked('x', 'generated')) STORED,
    CHECK (trap.allowed(plain, 'check'))
);
CREATE TABLE trap.parts (key text) PARTITION BY LIST (trap.marked(key, 'partition'));
CREATE TABLE trap.part PARTITION OF trap.parts DEFAULT;
CREATE INDEX ON trap.bait (trap.marked(plain, 'index'));
CREATE INDEX ON trap.bait (plain) WHERE trap.allowed(plain, 'predicate');
CREATE STATISTICS trap.told ON trap.marked(plain, 'statistics'), id FROM trap.bait;
CREATE TABLE trap.guarded (id integer REFERENCES trap.bait);
ALTER TABLE trap.guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY springs ON trap.guarded USING (trap.allowed('x', 'policy'));
CREATE MATERIALIZED VIEW trap.viewed AS SELECT trap.marked('x', 'view'), count(*) FROM trap.guarded;
CREATE FUNCTION trap.triggered() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN PERFORM trap.spring('trigger'); RETURN NEW; END
$body$;
CREATE TRIGGER springs BEFORE INSERT ON trap.bait FOR EACH ROW EXECUTE FUNCTION trap.triggered();
ALTER TABLE trap.bait ENABLE ALWAYS TRIGGER springs;
CREATE RULE springs AS ON INSERT TO trap.guarded DO ALSO SELECT trap.spring('rule');
INSERT INTO trap.bait (id, domained) VALUES (1, 'x'), (2, 'y');
INSERT INTO trap.parts VALUES ('a');
INSERT INTO trap.guarded VALUES (1);

-- Names that a shell, psql or a reader of lists could stumble over.
CREATE TABLE trap."line
\! touch %(mark)s
; " (id integer, "col
\! touch %(mark)s
" text);
COMMENT ON TABLE trap."line
\! touch %(mark)s
; " IS E'\n\\! touch %(mark)s\n';
CREATE SCHEMA "DATA";
CREATE TABLE "DATA"."%%s %%n $(touch %(mark)s) `touch %(mark)s`" (id integer);
CREATE FUNCTION trap."f
\! touch %(mark)s
"() RETURNS integer LANGUAGE sql AS 'SELECT 1';
TRUNCATE trap.seen;
SELECT setval('trap.calls', 1, false), setval('trap.powerful', 1, false), setval('trap.escapes', 1, false);
