-- $1 operation, $2 owner, $3 lease seconds
WITH claimed AS (
    UPDATE operations o
    SET epoch = epoch + 1,
        takeovers = takeovers + (lease_owner IS NOT NULL)::integer,
        lease_owner = $2,
        lease_until = clock_timestamp() + make_interval(secs => $3),
        state = CASE o.state WHEN 'cancelling' THEN o.state ELSE 'running' END,
        started_at = coalesce(started_at, clock_timestamp())
    WHERE id = $1
      AND catalog_is_accepted()
      AND state IN ('pending', 'running', 'waiting', 'cancelling')
      AND due_at <= clock_timestamp()
      AND (lease_until IS NULL OR lease_until < clock_timestamp())
    RETURNING *
), begun AS (
    UPDATE steps s
    SET state = 'running',
        attempts = attempts + 1,
        started_at = coalesce(s.started_at, clock_timestamp())
    FROM claimed
    WHERE claimed.state = 'running'
      AND s.operation_id = claimed.id
      AND s.position = (SELECT min(position) FROM steps
                        WHERE operation_id = $1 AND state IN ('pending', 'running'))
    RETURNING s.*
), told AS (
    SELECT pg_notify('tenantry_operations', id::text) FROM claimed
)
SELECT c.id, c.kind, c.subject, c.state, c.queue, c.tenant_id, c.server_id, c.database_id,
       c.input, c.result, c.actor, c.epoch, c.created_at, c.started_at, c.finished_at,
       c.deadline, c.error_code, c.error_message,
       (SELECT jsonb_agg(jsonb_build_object(
            'name', s.name,
            'state', coalesce(b.state, s.state),
            'attempts', coalesce(b.attempts, s.attempts)) ORDER BY s.position)
        FROM steps s LEFT JOIN begun b USING (operation_id, position)
        WHERE s.operation_id = c.id) AS steps
FROM claimed c, told
