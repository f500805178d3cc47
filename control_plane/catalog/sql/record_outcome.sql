-- $1 operation, $2 epoch, $3 lease seconds, $4 position, $5 step state, $6 detail, $7 last step
WITH held AS (
    UPDATE operations
    SET state = CASE WHEN $7 THEN 'succeeded' ELSE state END,
        finished_at = CASE WHEN $7 THEN clock_timestamp() END,
        lease_owner = CASE WHEN $7 THEN NULL ELSE lease_owner END,
        lease_until = CASE WHEN $7 THEN NULL
                           ELSE clock_timestamp() + make_interval(secs => $3) END
    WHERE id = $1 AND epoch = $2 AND state IN ('running', 'cancelling')
      AND lease_owner IS NOT NULL
    RETURNING id, state
), ended AS (
    UPDATE steps s
    SET state = $5, detail = $6, finished_at = clock_timestamp(),
        error_code = NULL, error_message = NULL
    FROM held
    WHERE s.operation_id = held.id AND s.position = $4
), begun AS (
    UPDATE steps s
    SET state = 'running', attempts = attempts + 1,
        started_at = coalesce(started_at, clock_timestamp())
    FROM held
    WHERE held.state = 'running' AND s.operation_id = held.id AND s.position = $4 + 1
), told AS (
    SELECT pg_notify('tenantry_operations', id::text) FROM held
)
SELECT held.state FROM held, told
