-- name: provider_search
-- shows: Providers in a city with a specialty, their main one or another, who take patients; by
--   name, twenty to a page. The next page begins after the last one seen, the first after an empty
--   name.
-- parameters: specialty_id uuid, city_id uuid, after_name text, after_id uuid
-- budget: buffers 200, rows 20, removed 50
-- uses: provider_search
-- typical:
--   SELECT specialty_id, city_id, '' AS after_name, uuid '00000000-0000-0000-0000-000000000000' AS after_id
--     FROM providers.provider ORDER BY id
-- worst:
--   SELECT specialty_id, city_id, '' AS after_name, uuid '00000000-0000-0000-0000-000000000000' AS after_id
--     FROM providers.provider GROUP BY 1, 2 ORDER BY count(*) DESC, 1, 2
WITH found AS (
    SELECT id, display_name, specialty_id, city_id
      FROM providers.provider
     WHERE specialty_id = :specialty_id AND city_id = :city_id AND is_available AND deleted_at IS NULL
     UNION
    SELECT p.id, p.display_name, p.specialty_id, p.city_id
      FROM providers.provider_specialty o
      JOIN providers.provider p ON p.id = o.provider_id
     WHERE o.specialty_id = :specialty_id AND o.deleted_at IS NULL
       AND p.city_id = :city_id AND p.is_available AND p.deleted_at IS NULL
)
SELECT f.id, f.display_name, s.name AS main_specialty, c.name AS city
  FROM found f
  JOIN public.specialty s ON s.id = f.specialty_id
  JOIN public.city c ON c.id = f.city_id
 WHERE (f.display_name, f.id) > (:after_name, :after_id)
 ORDER BY f.display_name, f.id
 LIMIT 20;
