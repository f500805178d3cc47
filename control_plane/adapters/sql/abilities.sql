-- What the login of this session may do here, as one JSON object. $1 settings that are guarded
SELECT jsonb_build_object(
    'superuser', r.rolsuper,
    'createdb', r.rolcreatedb,
    'createrole', r.rolcreaterole,
    'replication', r.rolreplication,
    'lends_streaming', EXISTS (SELECT FROM pg_roles s WHERE s.rolname = 'rds_replication'
                                  AND pg_has_role(r.oid, s.oid, 'USAGE')
                                  AND pg_has_role(r.oid, s.oid, 'MEMBER WITH ADMIN OPTION')),
    'bypassrls', r.rolbypassrls,
    'settings', (SELECT coalesce(jsonb_agg(name), '[]') FROM unnest($1::text[]) AS name
                  WHERE has_parameter_privilege(r.oid, name, 'SET')),
    'subscriptions', EXISTS (SELECT FROM pg_roles s WHERE s.rolname = 'pg_create_subscription'
                                AND pg_has_role(r.oid, s.oid, 'USAGE')),
    'origins', has_function_privilege(r.oid, 'pg_replication_origin_advance(text, pg_lsn)', 'EXECUTE'),
    'restore_points', has_function_privilege(r.oid, 'pg_create_restore_point(text)', 'EXECUTE'),
    'statistics', pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE'),
    'signals', pg_has_role(r.oid, 'pg_signal_backend', 'USAGE')
)::text
  FROM pg_roles r WHERE r.rolname = session_user
