-- $1 operation, $2 epoch, $3 seconds, $4 detail, $5 error code, $6 error message
WITH held AS (
    UPDATE operations
    SET state = CASE state WHEN 'cancelling' THEN state ELSE 'waiting' END,
        due_at = CASE state WHEN 'cancelling' THEN clock_timestamp()
                            ELSE clock_timestamp() + make_interval(secs => $3) END,
        lease_owner = NULL,
        lease_until = NULL
    WHERE id = $1 AND epoch = $2 AND state IN ('running', 'cancelling')
      AND lease_owner IS NOT NULL
    RETURNING id
), noted AS (
    UPDATE steps s
    SET detail = coalesce($4, detail), error_code = $5, error_message = $6
    FROM held
    WHERE s.operation_id = held.id AND s.state = 'running'
), told AS (
    SELECT pg_notify('tenantry_operations', id::text) FROM held
)
SELECT held.id FROM held, told
