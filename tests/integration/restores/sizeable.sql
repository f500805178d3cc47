-- A table that takes its time, and an index that takes as long as somebody else wants.
SET ROLE %(owner)s;
CREATE TABLE public.note (id integer PRIMARY KEY, words text);
INSERT INTO public.note SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 180000) AS n;
CREATE FUNCTION public.wait() RETURNS void LANGUAGE sql AS $$ SELECT pg_catalog.pg_advisory_xact_lock_shared(77) $$;
CREATE FUNCTION public.waited(value integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN IF value = 1 THEN PERFORM public.wait(); END IF; RETURN value; END
$body$;
REVOKE EXECUTE ON FUNCTION public.wait(), public.waited(integer) FROM PUBLIC;
CREATE INDEX note_waited ON public.note (public.waited(id));
RESET ROLE;
