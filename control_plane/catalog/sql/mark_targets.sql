-- A batch has its restore point and begins to apply.
-- $1 rollout operation, $2 operations, $3 restore point ids, $4 server, $5 name, $6 lsn,
-- $7 for each the revision that will run outside of a transaction, if any
WITH held AS (
    SELECT o.id, o.tenant_id, ids.id AS point, ids.outside
    FROM unnest($2::uuid[], $3::uuid[], $7::text[]) AS ids (operation_id, id, outside)
    JOIN operations o ON o.id = ids.operation_id
    JOIN operations p ON p.id = $1 AND p.lease_owner = o.lease_owner
    WHERE o.state IN ('running', 'cancelling') AND o.epoch = 1
), points AS (
    INSERT INTO restore_points (id, tenant_id, server_id, operation_id, name, lsn, revision)
    SELECT held.point, held.tenant_id, $4, held.id, $5, $6::text::pg_lsn, d.schema_revision
    FROM held JOIN databases d ON d.tenant_id = held.tenant_id AND d.purpose = 'primary'
    ON CONFLICT (operation_id) DO NOTHING
), unfinished AS (
    UPDATE databases d SET unfinished_revision = held.outside
    FROM held
    WHERE d.tenant_id = held.tenant_id AND d.purpose = 'primary' AND held.outside IS NOT NULL
), stepped AS (
    UPDATE steps s
    SET state = CASE s.position WHEN 0 THEN 'done' ELSE 'running' END,
        attempts = CASE s.position WHEN 0 THEN attempts ELSE attempts + 1 END,
        started_at = coalesce(s.started_at, clock_timestamp()),
        finished_at = CASE s.position WHEN 0 THEN clock_timestamp() END,
        detail = CASE s.position WHEN 0 THEN $5 || ' at ' || $6 END
    FROM held WHERE s.operation_id = held.id AND s.position IN (0, 1)
)
SELECT id FROM held
