-- Lists, in order, what an administrator makes in an empty scratch database before it is loaded.
-- $1 loader  $2 owner  $3, $4, $5 names, versions and schemas of extensions
-- An extension gets the version it had where the server offers it, or else the default one. One that
-- a tenant may make is the owner's, any other one the administrator's.
WITH RECURSIVE wanted AS (
    SELECT w.name, w.schema, v.version, v.requires, v.trusted OR NOT v.superuser AS by_owner
      FROM unnest($3::text[], $4::text[], $5::text[]) AS w (name, version, schema)
      JOIN pg_available_extensions a ON a.name = w.name
      JOIN pg_available_extension_versions v ON v.name = w.name
       AND v.version = CASE WHEN EXISTS (SELECT FROM pg_available_extension_versions o
                                          WHERE o.name = w.name AND o.version = w.version)
                            THEN w.version ELSE a.default_version END
), level AS (
    SELECT name, 0 AS depth FROM wanted
    UNION
    SELECT w.name, l.depth + 1 FROM level l JOIN wanted w ON l.name = ANY (w.requires)
     WHERE l.depth < 50
), statements AS (
    SELECT 1 AS step, 0 AS depth, format('CREATE SCHEMA %I AUTHORIZATION %I', schema, $1::text) AS statement
      FROM (SELECT DISTINCT schema FROM wanted) AS w
     WHERE to_regnamespace(quote_ident(schema)) IS NULL
    UNION ALL
    SELECT 2, (SELECT max(depth) FROM level l WHERE l.name = w.name),
           format(CASE WHEN by_owner THEN 'SET ROLE %1$I; %2$s; RESET ROLE' ELSE '%2$s' END, $2::text,
                  format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I VERSION %L', name, schema, version))
      FROM wanted w
)
SELECT statement FROM statements ORDER BY step, depth, statement
