-- How the migrations of a batch ended: done, failed at a step, to be tried again later by the
-- engine, or put back, untouched, to wait in their wave.
-- $1 rollout operation, $2 operations, $3 outcomes (done, failed, later, back), $4 positions, $5 codes,
-- $6 messages, $7 revision reached, $8 fingerprints, $9 seconds until later
WITH told AS (
    SELECT * FROM unnest($2::uuid[], $3::text[], $4::int[], $5::text[], $6::text[], $8::text[])
        AS t (id, outcome, position, code, message, fingerprint)
), held AS (
    UPDATE operations o
    SET state = CASE told.outcome WHEN 'done' THEN 'succeeded' WHEN 'failed' THEN 'failed'
                                  WHEN 'back' THEN 'cancelled' ELSE 'waiting' END,
        finished_at = CASE WHEN told.outcome <> 'later' THEN clock_timestamp() END,
        lease_owner = NULL, lease_until = NULL,
        due_at = clock_timestamp() + make_interval(secs => $9),
        error_code = CASE told.outcome WHEN 'failed' THEN told.code END,
        error_message = CASE told.outcome WHEN 'failed' THEN told.message END
    FROM told, operations p
    WHERE o.id = told.id AND p.id = $1 AND o.lease_owner = p.lease_owner AND o.epoch = 1
      AND o.state IN ('running', 'cancelling')
    RETURNING o.id, o.tenant_id, told.outcome, told.position, told.code, told.message,
              told.fingerprint
), stepped AS (
    UPDATE steps s
    SET state = CASE WHEN h.outcome = 'back' AND s.position > 0 THEN 'skipped'
                     WHEN h.outcome = 'done' OR s.position < h.position THEN 'done'
                     WHEN h.outcome = 'failed' THEN 'failed' ELSE 'running' END,
        attempts = greatest(s.attempts, 1),
        started_at = coalesce(s.started_at, clock_timestamp()),
        finished_at = CASE WHEN h.outcome = 'later' AND s.position = h.position THEN NULL
                           ELSE coalesce(s.finished_at, clock_timestamp()) END,
        detail = CASE WHEN s.position = 0 THEN s.detail
                      WHEN h.outcome = 'done' OR s.position < h.position THEN 'revision ' || $7 END,
        error_code = CASE WHEN s.position = h.position THEN h.code END,
        error_message = CASE WHEN s.position = h.position THEN h.message END
    FROM held h
    WHERE s.operation_id = h.id
      AND (h.outcome IN ('done', 'back') OR s.position <= h.position)
), reached AS (
    UPDATE databases d
    SET schema_revision = $7, schema_fingerprint = h.fingerprint,
        schema_read_at = CASE WHEN h.fingerprint IS NOT NULL THEN clock_timestamp() END,
        unfinished_revision = NULL
    FROM held h
    -- What failed to be verified has the revision all the same.
    WHERE (h.outcome = 'done' OR h.outcome = 'failed' AND h.position > 1)
      AND d.tenant_id = h.tenant_id AND d.purpose = 'primary'
), untouched AS (
    UPDATE databases d SET unfinished_revision = NULL FROM held h
    WHERE h.outcome = 'back' AND d.tenant_id = h.tenant_id AND d.purpose = 'primary'
), counted AS (
    UPDATE rollout_targets r
    SET state = CASE h.outcome WHEN 'done' THEN 'done' WHEN 'back' THEN 'waiting'
                               ELSE 'failed' END,
        finished_at = CASE WHEN h.outcome <> 'back' THEN clock_timestamp() END,
        attempts = r.attempts - CASE h.outcome WHEN 'back' THEN 1 ELSE 0 END,
        error_code = h.code, error_message = h.message
    FROM held h
    WHERE h.outcome <> 'later' AND r.operation_id = h.id AND r.state = 'running'
), rung AS (
    SELECT pg_notify('tenantry_operations', id::text) FROM held
)
SELECT (SELECT count(*) FROM rung) AS notified, held.id, held.outcome FROM held
