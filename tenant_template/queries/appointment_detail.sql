-- name: appointment_detail
-- shows: One appointment with its patient, provider, service, payments and review.
-- parameters: appointment_id uuid
-- budget: buffers 60, rows 1, removed 2
-- uses: appointment_pkey, payment_appointment, review_appointment_key
-- typical:
--   SELECT id AS appointment_id FROM bookings.appointment ORDER BY id
-- worst:
--   SELECT appointment_id FROM bookings.payment GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT a.id, a.appointment_at, a.status, a.notes_ciphertext,
       a.patient_id, p.name_ciphertext, p.phone_ciphertext, p.birth_date_ciphertext,
       a.provider_id, v.display_name AS provider,
       s.name AS service, s.duration_minutes, s.price, s.currency,
       paid.payments, r.rating, r.comment_ciphertext
  FROM bookings.appointment a
  JOIN patients.patient p ON p.id = a.patient_id
  JOIN providers.provider v ON v.id = a.provider_id
  LEFT JOIN providers.service s ON s.id = a.service_id
  LEFT JOIN bookings.review r ON r.appointment_id = a.id AND r.deleted_at IS NULL
  LEFT JOIN LATERAL (
       SELECT jsonb_agg(jsonb_build_object('id', m.id, 'amount', m.amount, 'currency', m.currency,
                                           'status', m.status) ORDER BY m.created_at) AS payments
         FROM bookings.payment m
        WHERE m.appointment_id = a.id AND m.deleted_at IS NULL) AS paid ON true
 WHERE a.id = :appointment_id AND a.deleted_at IS NULL;
