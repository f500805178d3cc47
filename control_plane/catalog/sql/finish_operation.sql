-- $1 operation, $2 epoch, $3 state (failed or cancelled), $4 position, $5 code, $6 message
WITH held AS (
    UPDATE operations
    SET state = $3, finished_at = clock_timestamp(), lease_owner = NULL, lease_until = NULL,
        error_code = $5, error_message = $6
    WHERE id = $1 AND epoch = $2 AND state IN ('running', 'cancelling')
      AND lease_owner IS NOT NULL
    RETURNING id, state
), ended AS (
    UPDATE steps s
    SET state = CASE WHEN s.position = $4 THEN 'failed' ELSE 'skipped' END,
        finished_at = clock_timestamp(),
        error_code = CASE WHEN s.position = $4 THEN $5 END,
        error_message = CASE WHEN s.position = $4 THEN $6 END
    FROM held
    WHERE s.operation_id = held.id
      AND (s.position = $4 OR (held.state = 'cancelled' AND s.state IN ('pending', 'running')))
), told AS (
    SELECT pg_notify('tenantry_operations', id::text) FROM held
)
SELECT held.id FROM held, told
