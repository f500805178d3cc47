-- name: unpaid_payments
-- shows: Payments that nobody made yet, the oldest first, fifty to a page, with whose visit it was.
-- parameters: after_at timestamptz, after_id uuid
-- budget: buffers 700, rows 50, removed 2
-- uses: payment_pending
-- typical:
--   SELECT created_at AS after_at, id AS after_id FROM bookings.payment
--    WHERE status = 'pending' ORDER BY id
-- worst:
--   SELECT timestamptz '-infinity' AS after_at, uuid '00000000-0000-0000-0000-000000000000' AS after_id
SELECT m.id, m.amount, m.currency, m.created_at, a.id AS appointment_id, a.appointment_at,
       a.patient_id, v.display_name AS provider
  FROM bookings.payment m
  JOIN bookings.appointment a ON a.id = m.appointment_id
  JOIN providers.provider v ON v.id = a.provider_id
 WHERE m.status = 'pending'
   AND m.deleted_at IS NULL
   AND (m.created_at, m.id) > (:after_at, :after_id)
 ORDER BY m.created_at, m.id
 LIMIT 50;
