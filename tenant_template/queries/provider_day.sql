-- name: provider_day
-- shows: A provider's day: everyone who is expected or came, in order of time.
-- parameters: provider_id uuid, day_start timestamptz, day_end timestamptz
-- budget: buffers 800, rows 200, removed 10
-- uses: none
-- typical:
--   SELECT provider_id, date_trunc('day', appointment_at) AS day_start,
--          date_trunc('day', appointment_at) + interval '1 day' AS day_end
--     FROM bookings.appointment ORDER BY id
-- worst:
--   SELECT provider_id, date_trunc('day', appointment_at) AS day_start,
--          date_trunc('day', appointment_at) + interval '1 day' AS day_end
--     FROM bookings.appointment GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2
SELECT a.id, a.appointment_at, a.status, a.patient_id, p.name_ciphertext, s.name AS service,
       s.duration_minutes, a.notes_ciphertext
  FROM bookings.appointment a
  JOIN patients.patient p ON p.id = a.patient_id
  LEFT JOIN providers.service s ON s.id = a.service_id
 WHERE a.provider_id = :provider_id
   AND a.appointment_at >= :day_start
   AND a.appointment_at < :day_end
   AND a.status <> 'cancelled'
   AND a.deleted_at IS NULL
 ORDER BY a.appointment_at, a.id
 LIMIT 200;
