-- name: provider_upcoming
-- shows: A provider's next confirmed appointments, twenty to a page. The status is a literal: a
--   parameter would hide the partial index from a generic plan. The page is cut before the joins.
-- parameters: provider_id uuid, after_at timestamptz, after_id uuid
-- budget: buffers 1000, rows 20, removed 2
-- uses: appointment_upcoming
-- typical:
--   SELECT id AS provider_id, now() AS after_at, uuid '00000000-0000-0000-0000-000000000000' AS after_id
--     FROM providers.provider ORDER BY id
-- worst:
--   SELECT provider_id, now() AS after_at, uuid '00000000-0000-0000-0000-000000000000' AS after_id
--     FROM bookings.appointment GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT a.id, a.appointment_at, a.patient_id, p.name_ciphertext, s.name AS service, s.duration_minutes
  FROM (SELECT id, appointment_at, patient_id, service_id
          FROM bookings.appointment
         WHERE provider_id = :provider_id
           AND status = 'confirmed'
           AND deleted_at IS NULL
           AND appointment_at > now()
           AND (appointment_at, id) > (:after_at, :after_id)
         ORDER BY appointment_at, id
         LIMIT 20) AS a
  JOIN patients.patient p ON p.id = a.patient_id
  LEFT JOIN providers.service s ON s.id = a.service_id
 ORDER BY a.appointment_at, a.id;
