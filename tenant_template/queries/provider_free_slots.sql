-- name: provider_free_slots
-- shows: When a provider could still do a service on a day: the hours in which they are there, cut
--   into pieces as long as the service, without those that an appointment touches. An appointment
--   lasts as long as its service (30 minutes without one), at most a day: so the one that began up
--   to a day earlier may still run.
-- parameters: provider_id uuid, service_id uuid, day_start timestamptz, day_end timestamptz
-- budget: buffers 600, rows 100, removed 60
-- uses: availability_provider
-- typical:
--   SELECT v.provider_id, s.id AS service_id, date_trunc('day', v.starts_at) AS day_start,
--          date_trunc('day', v.starts_at) + interval '1 day' AS day_end
--     FROM providers.availability v JOIN providers.service s USING (provider_id)
--    WHERE v.starts_at BETWEEN now() AND now() + interval '10 days' AND s.duration_minutes = 30
--    ORDER BY v.id
-- worst:
--   SELECT a.provider_id, s.id AS service_id, date_trunc('day', a.appointment_at) AS day_start,
--          date_trunc('day', a.appointment_at) + interval '1 day' AS day_end
--     FROM bookings.appointment a JOIN providers.service s USING (provider_id)
--    WHERE a.appointment_at BETWEEN now() AND now() + interval '10 days' AND s.duration_minutes = 15
--    GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 1, 3
WITH wanted AS (
    SELECT duration_minutes * interval '1 minute' AS lasts
      FROM providers.service
     WHERE id = :service_id AND provider_id = :provider_id AND deleted_at IS NULL
), taken AS (
    SELECT range_agg(tstzrange(a.appointment_at, a.appointment_at
                     + coalesce(s.duration_minutes, 30) * interval '1 minute')) AS times
      FROM bookings.appointment a
      LEFT JOIN providers.service s ON s.id = a.service_id
     WHERE a.provider_id = :provider_id
       AND a.appointment_at >= CAST(:day_start AS timestamptz) - interval '1 day'
       AND a.appointment_at < :day_end
       AND a.status IN ('requested', 'confirmed')
       AND a.deleted_at IS NULL
)
SELECT slot.starts_at, slot.starts_at + wanted.lasts AS ends_at
  FROM wanted
 CROSS JOIN taken
  JOIN providers.availability v ON v.provider_id = :provider_id
 CROSS JOIN LATERAL generate_series(v.starts_at, v.ends_at - wanted.lasts, wanted.lasts) AS slot (starts_at)
 WHERE v.starts_at >= :day_start
   AND v.starts_at < :day_end
   AND v.deleted_at IS NULL
   AND slot.starts_at > now()
   AND NOT tstzrange(slot.starts_at, slot.starts_at + wanted.lasts)
           && coalesce(taken.times, tstzmultirange())
 ORDER BY slot.starts_at
 LIMIT 100;
