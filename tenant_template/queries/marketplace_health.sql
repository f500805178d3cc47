-- name: marketplace_health
-- shows: Where patients of a specialty wait: its cities, those with the most upcoming appointments
--   for each provider who takes patients first, and as of when.
-- parameters: specialty_id uuid
-- budget: buffers 100, rows 50, removed 50
-- uses: marketplace_health_key
-- typical:
--   SELECT id AS specialty_id FROM public.specialty ORDER BY id
-- worst:
--   SELECT specialty_id FROM reports.marketplace_health GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT c.name AS city, m.providers, m.available_providers, m.upcoming, m.completed,
       m.average_rating, m.refreshed_at
  FROM reports.marketplace_health m
  JOIN public.city c ON c.id = m.city_id
 WHERE m.specialty_id = :specialty_id
 ORDER BY m.upcoming / greatest(m.available_providers, 1) DESC, c.name
 LIMIT 50;
