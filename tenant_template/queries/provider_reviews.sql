-- name: provider_reviews
-- shows: A provider's reviews, newest visit first, twenty to a page; the next page begins before the
--   last visit seen. At most a thousand visits are looked through for one page, so that a busy
--   provider whom nobody reviews costs no more than another.
-- parameters: provider_id uuid, before_at timestamptz, before_id uuid
-- budget: buffers 1500, rows 20, removed 5
-- uses: appointment_completed, review_appointment_key
-- typical:
--   SELECT id AS provider_id, now() AS before_at, uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff' AS before_id
--     FROM providers.provider ORDER BY id
-- worst:
--   SELECT provider_id, now() AS before_at, uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff' AS before_id
--     FROM bookings.appointment GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT r.id, r.rating, r.comment_ciphertext, visit.id AS appointment_id, visit.appointment_at
  FROM (SELECT a.id, a.appointment_at
          FROM bookings.appointment a
         WHERE a.provider_id = :provider_id
           AND (a.appointment_at, a.id) < (:before_at, :before_id)
           AND a.status = 'completed'
           AND a.deleted_at IS NULL
         ORDER BY a.appointment_at DESC, a.id DESC
         LIMIT 1000) AS visit
  JOIN bookings.review r ON r.appointment_id = visit.id AND r.deleted_at IS NULL
 ORDER BY visit.appointment_at DESC, visit.id DESC
 LIMIT 20;
