-- A fleet of $tenants tenants on 20 servers with a year of history, as the catalog keeps it.
INSERT INTO servers (id, name, host, hostaddr, port, admin_login, sealed_password, tls,
                     system_identifier, version_num, region, capacity, placed, state)
SELECT gen_random_uuid(), 'pg-' || n, 'pg-' || n, '10.0.0.1', 5432, 'admin', '\x00', 'disable',
       n, 180006, 'eu-1', 1000, {tenants} / 20, 'active' FROM generate_series(10, 29) n;
INSERT INTO cells (id, name, max_tenants) VALUES (gen_random_uuid(), 'cell-1', 100000);
INSERT INTO poolers (id, name, cell_id, host, port, version)
SELECT gen_random_uuid(), 'p1', id, '127.0.0.1', 6432, '1.26.1' FROM cells;
CREATE TEMPORARY TABLE wanted AS
SELECT gen_random_uuid() AS id, n, 'clinic-' || lpad(n::text, 5, '0') AS slug,
       (ARRAY['Harbour', 'Meadow', 'Hill', 'River', 'Forest'])[1 + n % 5] || ' Clinic ' || n AS name
FROM generate_series(1, {tenants}) n;
INSERT INTO role_sets (id) SELECT id FROM wanted;
INSERT INTO tenants (id, slug, name, tier, state, cell_id, placement_reason, created_at,
                     activated_at, template)
SELECT w.id, w.slug, w.name, (ARRAY['standard', 'standard', 'standard', 'enterprise'])[1 + n % 4],
       CASE WHEN n % 50 = 0 THEN 'suspended' ELSE 'active' END, c.id, 'pg-10: least loaded',
       now() - interval '365 days', now() - interval '365 days', 'clinic'
FROM wanted w, cells c;
INSERT INTO databases (id, role_set_id, tenant_id, server_id, name, template,
                       template_fingerprint, schema_revision, purpose)
SELECT w.id, w.id, w.id, s.id, 't_' || lpad(w.n::text, 26, '0'), 'clinic', '0123456789abcdef',
       '0011', 'primary'
FROM wanted w JOIN servers s ON s.name = 'pg-' || (10 + w.n % 20);
INSERT INTO backup_turns (tenant_id, slot_at, due_at, breached_at)
SELECT id, now(), now() + interval '6 hours', CASE WHEN n % 500 = 0 THEN now() END FROM wanted;
INSERT INTO backups (id, tenant_id, server_id, cause, state, key_version, object_key,
                     manifest_key, stored_bytes, plain_bytes, sha256, tables, rows, template,
                     schema_revision, server_version, snapshot_at, created_at, finished_at)
SELECT gen_random_uuid(), w.id, d.server_id, 'schedule', 'complete', 1, 'k', 'm', 1000000, 5000000,
       decode(repeat('ab', 32), 'hex'), 30, 100000, 'clinic', '0011', 180006,
       at, at, at + interval '5 s'
FROM wanted w JOIN databases d ON d.tenant_id = w.id
CROSS JOIN LATERAL (SELECT now() - make_interval(days => day) AS at
                    FROM generate_series(0, 29) day) days;
INSERT INTO drills (id, backup_id, tenant_id, server_id, cause, state, started_at, finished_at,
                    download_seconds, load_seconds, compare_seconds, server_version)
SELECT gen_random_uuid(), b.id, b.tenant_id, b.server_id, 'rotation', 'passed',
       now() - make_interval(days => 30 * month), now() - make_interval(days => 30 * month),
       1, 2, 1, 180006
FROM (SELECT DISTINCT ON (tenant_id) * FROM backups) b, generate_series(0, 11) month;
INSERT INTO operations (id, kind, subject, state, queue, tenant_id, actor, deadline, created_at,
                        started_at, finished_at, error_code, error_message)
SELECT gen_random_uuid(), 'backup', w.slug,
       CASE WHEN month = 0 AND w.n % 1000 = 0 THEN 'failed' ELSE 'succeeded' END, 'transfer', w.id,
       'system', at + interval '1 hour', at, at, at + interval '5 s',
       CASE WHEN month = 0 AND w.n % 1000 = 0 THEN 'disk_full' END,
       CASE WHEN month = 0 AND w.n % 1000 = 0 THEN 'the disk of pg-10 is full' END
FROM wanted w CROSS JOIN LATERAL (SELECT month, now() - make_interval(days => 30 * month) AS at
                                  FROM generate_series(0, 11) month) months;
INSERT INTO operations (id, kind, subject, state, queue, tenant_id, actor, deadline)
SELECT gen_random_uuid(), 'backup', slug, 'running', 'transfer', id, 'system',
       now() + interval '1 hour' FROM wanted WHERE n % 700 = 0;
INSERT INTO steps (operation_id, position, name, state, started_at, finished_at)
SELECT o.id, p, 'step_' || p, CASE WHEN o.finished_at IS NULL THEN 'running' ELSE 'done' END,
       o.created_at, o.finished_at
FROM operations o, generate_series(0, 4) p;
INSERT INTO audit_events (at, actor, action, outcome, subject, tenant_id)
SELECT now() - make_interval(days => day), 'system', 'backup.create', 'allowed', w.slug, w.id
FROM wanted w, generate_series(0, 29) day;
