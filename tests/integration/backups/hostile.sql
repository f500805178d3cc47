-- Everything that a name could find, or that an expression could call, in place of what is meant. It
-- fails for the backup login; for the owner it works, or it could not be made at all.
SET search_path = public;

CREATE FUNCTION public.trap() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN
    IF session_user ~ '_bak$' THEN
        RAISE EXCEPTION 'a trap ran as %, read-only: %', current_user,
                        current_setting('transaction_read_only');
    END IF;
    RETURN true;
END $body$;
CREATE FUNCTION public.trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE
AS $body$ BEGIN PERFORM public.trap(); RETURN $1; END $body$;
CREATE FUNCTION public.trap(bigint, bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
AS $body$ BEGIN PERFORM public.trap(); RETURN $1; END $body$;
CREATE FUNCTION public.trap(integer, integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
AS $body$ BEGIN RETURN public.trap(); END $body$;
CREATE FUNCTION public.trap(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
AS $body$ BEGIN PERFORM public.trap(); RETURN $1; END $body$;

CREATE SCHEMA traps;
CREATE TYPE traps.mood AS ENUM ('sad', 'happy');
CREATE TYPE traps.pair AS (a integer, b text);
CREATE FUNCTION traps.words(traps.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE
AS $body$ BEGIN PERFORM public.trap(); RETURN 'mood'; END $body$;
CREATE FUNCTION traps.words(traps.pair) RETURNS text LANGUAGE plpgsql IMMUTABLE
AS $body$ BEGIN PERFORM public.trap(); RETURN 'pair'; END $body$;
CREATE CAST (traps.mood AS text) WITH FUNCTION traps.words(traps.mood) AS IMPLICIT;
CREATE CAST (traps.pair AS text) WITH FUNCTION traps.words(traps.pair) AS IMPLICIT;
CREATE DOMAIN traps.checked AS integer CHECK (public.trap(VALUE) = VALUE);

CREATE FUNCTION public.hash_record_extended(record, bigint) RETURNS bigint LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN 0; END $body$;
CREATE FUNCTION public.hash_record_extended(record, integer) RETURNS bigint LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN 0; END $body$;
CREATE FUNCTION public.hashint8extended(bigint, bigint) RETURNS bigint LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN 0; END $body$;
CREATE FUNCTION public.concat(anyelement) RETURNS text LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN ''; END $body$;
CREATE FUNCTION public.num_nulls(anyelement) RETURNS integer LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN 0; END $body$;
CREATE FUNCTION public.numeric_send(numeric) RETURNS bytea LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN ''; END $body$;
CREATE FUNCTION public.pg_export_snapshot() RETURNS text LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN ''; END $body$;
CREATE AGGREGATE public.sum(bigint) (SFUNC = public.trap, STYPE = bigint);
CREATE AGGREGATE public.sum(integer) (SFUNC = int4pl, STYPE = integer, FINALFUNC = public.trap);
CREATE OPERATOR public.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = public.trap);
CREATE TABLE public.pg_class (oid oid, relname name);
CREATE TABLE public.pg_largeobject_metadata (oid oid);
CREATE VIEW public.pg_attribute AS SELECT public.trap();

CREATE TABLE traps.prey (
    a integer CHECK (public.trap(a) = a) DEFAULT public.trap(1),
    b integer GENERATED ALWAYS AS (public.trap(a)) STORED,
    c traps.mood, d traps.pair, e traps.checked, f traps.mood[], n numeric
);
CREATE INDEX ON traps.prey (public.trap(a));
CREATE INDEX ON traps.prey (a) WHERE public.trap(a) > 0;
CREATE STATISTICS traps.prey_statistics ON (public.trap(a)), c FROM traps.prey;
CREATE TABLE traps.parted (a integer) PARTITION BY RANGE (public.trap(a));
CREATE TABLE traps.parted_1 PARTITION OF traps.parted FOR VALUES FROM (0) TO (100);
CREATE FUNCTION traps.fire() RETURNS trigger LANGUAGE plpgsql
AS $body$ BEGIN PERFORM public.trap(); RETURN NEW; END $body$;
CREATE TRIGGER fire BEFORE INSERT OR UPDATE ON traps.prey FOR EACH ROW EXECUTE FUNCTION traps.fire();
ALTER TABLE traps.prey ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON traps.prey USING (public.trap());
CREATE VIEW traps.seen AS SELECT public.trap(a) FROM traps.prey;
CREATE MATERIALIZED VIEW traps.kept AS SELECT public.trap(a) FROM traps.prey;
INSERT INTO traps.prey (a, c, d, e, f, n) VALUES (1, 'sad', '(1,x)', 5, '{happy}', 1.5), (2, NULL, NULL, NULL, NULL, 2);
INSERT INTO traps.parted VALUES (1), (2);
