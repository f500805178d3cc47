-- name: patient_appointments
-- shows: A patient's appointments, newest first, twenty to a page, with whom and for what.
-- parameters: patient_id uuid, before_at timestamptz, before_id uuid
-- budget: buffers 600, rows 20, removed 5
-- uses: appointment_patient
-- typical:
--   SELECT id AS patient_id, timestamptz 'infinity' AS before_at,
--          uuid '00000000-0000-0000-0000-000000000000' AS before_id
--     FROM patients.patient ORDER BY id
-- worst:
--   SELECT patient_id, timestamptz 'infinity' AS before_at,
--          uuid '00000000-0000-0000-0000-000000000000' AS before_id
--     FROM bookings.appointment GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT a.id, a.appointment_at, a.status, v.display_name AS provider, s.name AS service
  FROM (SELECT id, appointment_at, status, provider_id, service_id
          FROM bookings.appointment
         WHERE patient_id = :patient_id
           AND deleted_at IS NULL
           AND (appointment_at, id) < (:before_at, :before_id)
         ORDER BY appointment_at DESC, id DESC
         LIMIT 20) AS a
  JOIN providers.provider v ON v.id = a.provider_id
  LEFT JOIN providers.service s ON s.id = a.service_id
 ORDER BY a.appointment_at DESC, a.id DESC;
