-- What a move has to know of the server it goes to, as one JSON object. $1 LC_COLLATE wanted.
SELECT jsonb_build_object(
    'version_num', current_setting('server_version_num')::integer,
    'extensions', (SELECT coalesce(jsonb_agg(name), '[]') FROM pg_available_extensions),
    'knows_locale', $1::text IN ('C', 'POSIX')
        OR EXISTS (SELECT FROM pg_database WHERE datcollate = $1)
        OR EXISTS (SELECT FROM pg_collation WHERE collcollate = $1 OR collname = $1),
    'wal_level', current_setting('wal_level'),
    'slots_free', current_setting('max_replication_slots')::integer
                  - (SELECT count(*) FROM pg_replication_slots),
    'senders_free', current_setting('max_wal_senders')::integer
                    - (SELECT count(*) FROM pg_stat_replication),
    'workers_free', current_setting('max_logical_replication_workers')::integer
                    - (SELECT count(*) FROM pg_subscription WHERE subenabled),
    'databases_size', (SELECT sum(pg_database_size(oid)) FROM pg_database)
)::text
