-- name: booking_trends
-- shows: Appointments of each day by status, for at most a quarter, and as of when.
-- parameters: first_day date, last_day date
-- budget: buffers 400, rows 500, removed 1
-- uses: booking_trends_key
-- typical:
--   SELECT CAST(now() AS date) - n * 7 - 30 AS first_day, CAST(now() AS date) - n * 7 AS last_day
--     FROM generate_series(0, 19) AS n
-- worst:
--   SELECT CAST(now() AS date) - n - 91 AS first_day, CAST(now() AS date) - n AS last_day
--     FROM generate_series(0, 9) AS n
SELECT day, status, sum(appointments) AS appointments, min(refreshed_at) AS refreshed_at
  FROM reports.booking_trends
 WHERE day BETWEEN :first_day AND least(:last_day, CAST(:first_day AS date) + 92)
 GROUP BY day, status
 ORDER BY day, status
 LIMIT 500;
