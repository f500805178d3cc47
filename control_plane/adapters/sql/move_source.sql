-- What a move has to know of the database this runs in and of its server, as one JSON object.
-- A table's digest is the expression that hashes one of its rows: it calls functions of Postgres
-- only, never a cast or an operator that a tenant could have defined.
WITH space AS (
    SELECT oid, nspname FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'cp_meta')
), relation AS (
    SELECT c.oid, format('%I.%I', s.nspname, c.relname) AS name, c.relkind, c.relpersistence,
           c.relreplident
      FROM pg_class c JOIN space s ON s.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'f') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                       AND d.objid = c.oid AND d.deptype = 'e')
), attribute AS (
    SELECT a.attrelid, a.attnum, quote_ident(a.attname) AS name,
           CASE WHEN a.atttypid IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype,
                    'int8'::regtype, 'uuid'::regtype, 'date'::regtype, 'time'::regtype,
                    'timestamp'::regtype, 'timestamptz'::regtype, 'bytea'::regtype)
                THEN quote_ident(a.attname)
                WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype)
                THEN format('textsend(%I)', a.attname)
                WHEN a.atttypid = 'bpchar'::regtype THEN format('bpcharsend(%I)', a.attname)
                WHEN a.atttypid = 'float4'::regtype THEN format('float4send(%I)', a.attname)
                WHEN a.atttypid = 'float8'::regtype THEN format('float8send(%I)', a.attname)
                WHEN a.atttypid = 'numeric'::regtype THEN format('numeric_send(%I)', a.attname)
                WHEN a.atttypid = 'interval'::regtype THEN format('interval_send(%I)', a.attname)
                ELSE format('CASE num_nulls(%I) WHEN 0 THEN textsend(concat(%I)) END',
                            a.attname, a.attname)
           END AS digest
      FROM pg_attribute a JOIN relation r ON r.oid = a.attrelid
     WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
), tables AS (
    SELECT jsonb_build_object(
               'name', r.name,
               'size', pg_table_size(r.oid),
               'columns', coalesce((SELECT jsonb_agg(a.name ORDER BY a.attnum) FROM attribute a
                                     WHERE a.attrelid = r.oid), '[]'),
               'digest', format('hash_record_extended(ROW(%s), 0)',
                                (SELECT string_agg(a.digest, ', ' ORDER BY a.attnum)
                                   FROM attribute a WHERE a.attrelid = r.oid)),
               'keyed', CASE r.relreplident
                             WHEN 'f' THEN true
                             WHEN 'd' THEN EXISTS (SELECT FROM pg_index i
                                                    WHERE i.indrelid = r.oid AND i.indisprimary)
                             WHEN 'i' THEN EXISTS (SELECT FROM pg_index i
                                                    WHERE i.indrelid = r.oid AND i.indisreplident)
                             ELSE false END,
               'logged', r.relpersistence = 'p') AS one
      FROM relation r WHERE r.relkind = 'r'
     ORDER BY pg_table_size(r.oid) DESC, r.name
)
SELECT jsonb_build_object(
    'version_num', current_setting('server_version_num')::integer,
    'tables', coalesce((SELECT jsonb_agg(one) FROM tables), '[]'),
    'foreign_tables', coalesce((SELECT jsonb_agg(name ORDER BY name) FROM relation
                                 WHERE relkind = 'f'), '[]'),
    'row_security', coalesce((SELECT jsonb_agg(r.name ORDER BY r.name) FROM relation r
                                JOIN pg_class c ON c.oid = r.oid WHERE c.relrowsecurity), '[]'),
    'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
    'event_triggers', coalesce((SELECT jsonb_agg(evtname ORDER BY evtname)
                                  FROM pg_event_trigger), '[]'),
    'publications', coalesce((SELECT jsonb_agg(pubname ORDER BY pubname) FROM pg_publication
                               WHERE pubname !~ '^cp_[0-9a-z]{26}(_back)?$'), '[]'),
    'subscriptions', coalesce((SELECT jsonb_agg(subname ORDER BY subname) FROM pg_subscription s
                                WHERE subdbid = d.oid
                                  AND subname !~ '^cp_[0-9a-z]{26}(_back)?$'), '[]'),
    'extensions', coalesce((SELECT jsonb_agg(jsonb_build_object('name', e.extname,
                                       'version', e.extversion, 'schema', n.nspname)
                                   ORDER BY e.oid)
                              FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                             WHERE e.extname <> 'plpgsql'), '[]'),
    'prepared_transactions', (SELECT count(*) FROM pg_prepared_xacts
                               WHERE database = current_database()),
    'locale', jsonb_build_object(
        'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
        'provider', d.datlocprovider,
        'icu_locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
        'version', d.datcollversion),
    'size', pg_database_size(d.oid),
    'wal_level', current_setting('wal_level'),
    'slots_free', current_setting('max_replication_slots')::integer
                  - (SELECT count(*) FROM pg_replication_slots),
    'senders_free', current_setting('max_wal_senders')::integer
                    - (SELECT count(*) FROM pg_stat_replication),
    'workers_free', current_setting('max_logical_replication_workers')::integer
                    - (SELECT count(*) FROM pg_subscription WHERE subenabled),
    'slot_wal_limit', (SELECT setting::bigint * 1048576 FROM pg_settings
                        WHERE name = 'max_slot_wal_keep_size'),
    'old_transactions', coalesce((SELECT jsonb_agg(
            format('session %s in database %s, open for %s s', pid, datname,
                   extract(epoch FROM clock_timestamp() - xact_start)::integer))
       FROM pg_stat_activity
      WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        AND xact_start < clock_timestamp() - interval '5 s'), '[]')
)::text
  FROM pg_database d WHERE d.datname = current_database()
