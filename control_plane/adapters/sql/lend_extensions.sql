-- Lists what the loader ($1) and those it makes owners ($2) must be allowed to do with what belongs to
-- extensions while a scratch database is loaded: use a foreign data wrapper, fill a table whose rows
-- are dumped although it is the extension's.
SELECT format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %s', fdwname,
              (SELECT string_agg(quote_ident(who), ', ') FROM unnest($2::text[] || $1::text) AS who))
       AS statement
  FROM pg_foreign_data_wrapper
UNION ALL
SELECT format('GRANT ALL ON %s %s TO %I', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
              c.oid::regclass, $1::text)
  FROM pg_extension CROSS JOIN unnest(extconfig) AS config JOIN pg_class c ON c.oid = config
