-- Lists what takes away again whatever a scratch database was lent while it was loaded. $1 those who
-- may own something
SELECT format('REVOKE ALL ON FOREIGN DATA WRAPPER %I FROM %s', fdwname,
              (SELECT string_agg(quote_ident(who), ', ') FROM unnest($1::text[]) AS who)) AS statement
  FROM pg_foreign_data_wrapper
