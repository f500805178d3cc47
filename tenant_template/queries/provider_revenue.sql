-- name: provider_revenue
-- shows: What a provider earned in each of the last twelve months, by currency, and as of when.
-- parameters: provider_id uuid
-- budget: buffers 60, rows 60, removed 1
-- uses: provider_revenue_key
-- typical:
--   SELECT id AS provider_id FROM providers.provider ORDER BY id
-- worst:
--   SELECT provider_id FROM reports.provider_revenue GROUP BY 1 ORDER BY sum(paid_payments) DESC, 1
SELECT month, currency, paid_payments, paid, pending, refunded, refreshed_at
  FROM reports.provider_revenue
 WHERE provider_id = :provider_id
   AND month > CAST(now() AT TIME ZONE 'UTC' AS date) - interval '12 months'
 ORDER BY month DESC, currency
 LIMIT 60;
