-- name: provider_rating
-- shows: How a provider is rated: the average and number of the reviews of the last 500 visits.
--   Every review ever would be too many to read at once. A subquery instead of a join: a join
--   may be planned as a hash of all reviews.
-- parameters: provider_id uuid
-- budget: buffers 3000, rows 1, removed 5
-- uses: appointment_completed, review_appointment_key
-- typical:
--   SELECT id AS provider_id FROM providers.provider ORDER BY id
-- worst:
--   SELECT provider_id FROM bookings.appointment GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT count(rating) AS reviews, round(avg(rating), 2) AS average_rating
  FROM (SELECT (SELECT r.rating FROM bookings.review r
                 WHERE r.appointment_id = a.id AND r.deleted_at IS NULL) AS rating
          FROM bookings.appointment a
         WHERE a.provider_id = :provider_id
           AND a.appointment_at <= now()
           AND a.status = 'completed'
           AND a.deleted_at IS NULL
         ORDER BY a.appointment_at DESC, a.id DESC
         LIMIT 500) AS visit;
