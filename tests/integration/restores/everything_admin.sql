-- What only an administrator can put into a tenant's database. Its roles are named by what they do.
CREATE SCHEMA "Ext ensions" AUTHORIZATION %(owner)s;
SET ROLE %(owner)s;
CREATE EXTENSION citext SCHEMA "Ext ensions";
CREATE EXTENSION hstore SCHEMA public;
CREATE EXTENSION cube SCHEMA "Ext ensions";
CREATE EXTENSION btree_gist SCHEMA public;
CREATE EXTENSION pg_trgm SCHEMA public;
CREATE EXTENSION ltree SCHEMA public;
RESET ROLE;
CREATE EXTENSION earthdistance SCHEMA "Ext ensions";
CREATE EXTENSION postgres_fdw SCHEMA public;
CREATE EXTENSION dblink SCHEMA "Ext ensions";
-- Privileges on what belongs to the administrator.
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO %(owner)s;
REVOKE EXECUTE ON FUNCTION "Ext ensions".dblink(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "Ext ensions".dblink(text, text) TO %(app)s;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO %(owner)s;
-- The owner of this table may not create in the schema it is in.
CREATE TABLE public.of_the_auditor (id integer PRIMARY KEY);
CREATE STATISTICS public.of_the_auditor_too ON (id + 1), (id - 1) FROM public.of_the_auditor;
ALTER TABLE public.of_the_auditor OWNER TO %(auditor)s;
ALTER STATISTICS public.of_the_auditor_too OWNER TO %(auditor)s;
INSERT INTO public.of_the_auditor VALUES (1), (2);
GRANT SELECT ON public.of_the_auditor TO %(backup)s;
