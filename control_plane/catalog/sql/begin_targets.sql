-- $1 rollout, $2 server, $3 last wave, $4 operation ids (one for each that may begin),
-- $5 deadline, $6 step names, $7 queue
WITH parent AS (
    SELECT o.id, o.actor, o.lease_owner, o.lease_until
    FROM rollouts r JOIN operations o ON o.id = r.operation_id WHERE r.id = $1
), picked AS (
    SELECT r.tenant_id, t.slug, d.id AS database_id, d.role_set_id, d.name AS database,
           d.schema_revision AS revision
    FROM rollout_targets r
    JOIN tenants t ON t.id = r.tenant_id AND t.state IN ('active', 'suspended')
    JOIN databases d ON d.tenant_id = r.tenant_id AND d.purpose = 'primary'
    WHERE r.rollout_id = $1 AND r.state = 'waiting' AND r.wave <= $3 AND d.server_id = $2
      AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = r.tenant_id
                      AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
    ORDER BY r.wave, r.position LIMIT cardinality($4::uuid[])
    FOR UPDATE OF r SKIP LOCKED
), numbered AS (
    SELECT picked.*, ($4::uuid[])[row_number() OVER ()] AS operation_id FROM picked
), made AS (
    -- Whoever came first with another operation of the tenant is waited for.
    INSERT INTO operations (id, kind, subject, state, queue, tenant_id, input, actor, epoch,
                            lease_owner, lease_until, started_at, deadline)
    SELECT n.operation_id, 'migrate', n.slug, 'running', $7, n.tenant_id,
           jsonb_build_object('rollout', $1::uuid), p.actor, 1, p.lease_owner, p.lease_until,
           clock_timestamp(), clock_timestamp() + $5::interval
    FROM numbered n, parent p
    ON CONFLICT (tenant_id) WHERE state IN ('pending', 'running', 'waiting', 'cancelling')
    DO NOTHING
    RETURNING id, tenant_id
), begun AS (
    INSERT INTO steps (operation_id, position, name, state, attempts, started_at)
    SELECT made.id, s.position - 1, s.name,
           CASE s.position WHEN 1 THEN 'running' ELSE 'pending' END,
           CASE s.position WHEN 1 THEN 1 ELSE 0 END,
           CASE s.position WHEN 1 THEN clock_timestamp() END
    FROM made, unnest($6::text[]) WITH ORDINALITY AS s (name, position)
), marked AS (
    UPDATE rollout_targets r
    SET state = 'running', operation_id = made.id, attempts = attempts + 1,
        started_at = clock_timestamp(), error_code = NULL, error_message = NULL,
        from_revision = n.revision
    FROM made JOIN numbered n USING (tenant_id)
    WHERE r.rollout_id = $1 AND r.tenant_id = made.tenant_id
)
SELECT n.operation_id, n.tenant_id, n.slug, n.database_id, n.role_set_id, n.database, n.revision
FROM numbered n JOIN made ON made.id = n.operation_id
