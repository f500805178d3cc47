-- The statement that makes a database which encodes and sorts text as the one that was backed up.
-- $1 name  $2 owner  $3 encoding  $4 collate  $5 ctype  $6 provider  $7 locale of ICU or builtin
SELECT format('CREATE DATABASE %I TEMPLATE template0 STRATEGY WAL_LOG OWNER %I '
              'ALLOW_CONNECTIONS false ENCODING %L LC_COLLATE %L LC_CTYPE %L',
              $1::text, $2::text, $3::text, $4::text, $5::text)
       || CASE $6::text WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L', $7::text)
                        WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', $7)
                        ELSE ' LOCALE_PROVIDER libc' END
