-- name: provider_services
-- shows: What a provider offers, how long it takes and what it costs.
-- parameters: provider_id uuid
-- budget: buffers 60, rows 50, removed 5
-- uses: service_provider
-- typical:
--   SELECT id AS provider_id FROM providers.provider ORDER BY id
-- worst:
--   SELECT provider_id FROM providers.service GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT id, name, duration_minutes, price, currency
  FROM providers.service
 WHERE provider_id = :provider_id AND deleted_at IS NULL
 ORDER BY name, id
 LIMIT 50;
