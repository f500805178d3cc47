-- name: clinic_day
-- shows: The whole clinic's day: for each specialty and status, how many appointments and how many
--   providers.
-- parameters: day_start timestamptz, day_end timestamptz
-- budget: buffers 2000, rows 150, removed 5
-- uses: appointment_day
-- typical:
--   SELECT date_trunc('day', now()) + n * interval '1 day' AS day_start,
--          date_trunc('day', now()) + (n + 1) * interval '1 day' AS day_end
--     FROM generate_series(-10, 9) AS n
-- worst:
--   SELECT date_trunc('day', appointment_at) AS day_start,
--          date_trunc('day', appointment_at) + interval '1 day' AS day_end
--     FROM bookings.appointment GROUP BY 1, 2 ORDER BY count(*) DESC, 1
SELECT s.name AS specialty, a.status, count(*) AS appointments,
       count(DISTINCT a.provider_id) AS providers
  FROM bookings.appointment a
  JOIN providers.provider v ON v.id = a.provider_id
  JOIN public.specialty s ON s.id = v.specialty_id
 WHERE a.appointment_at >= :day_start
   AND a.appointment_at < :day_end
   AND a.deleted_at IS NULL
 GROUP BY s.name, a.status
 ORDER BY s.name, a.status;
