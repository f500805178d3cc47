-- A clinic of `clinic.patients` patients, ten appointments for each, and `clinic.providers`
-- providers (settings of the session). Every value is a hash of the row's number, so that each run
-- on the same day makes the same rows, on every Postgres.
-- Run by a superuser with session_replication_role = replica: triggers and foreign keys are quiet,
-- so what refers to what is this file's business, and a test checks it.

SET TimeZone = 'UTC';
-- VACUUM marks a page as visible to all only once the commit is on disk.
SET synchronous_commit = on;
SET work_mem = '64MB';
SET maintenance_work_mem = '512MB';

-- 0 <= u < 1, a function of the row and of what it is for.
CREATE FUNCTION pg_temp.u(row_number bigint, purpose bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE AS $$
    SELECT ((hashint8extended($1, $2) >> 11) & 9007199254740991) / 9007199254740992.0::float8
$$;

CREATE FUNCTION pg_temp.key(kind text, row_number bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT CAST(encode(int8send(hashint8extended($2, hashtextextended($1, 0)))
                       || int8send(hashint8extended($2, hashtextextended($1, 1))), 'hex') AS uuid)
$$;

-- The key of what belongs to the row with another key.
CREATE FUNCTION pg_temp.key(kind text, owner uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT CAST(encode(int8send(uuid_hash_extended($2, hashtextextended($1, 0)))
                       || int8send(uuid_hash_extended($2, hashtextextended($1, 1))), 'hex') AS uuid)
$$;

-- As long as real ciphertext of a field: 16 bytes a block, header and tag included.
CREATE FUNCTION pg_temp.cipher(kind text, row_number bigint, blocks integer) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$ SELECT decode(repeat(md5($1 || CAST($2 AS text)), $3), 'hex') $$;

CREATE TEMPORARY TABLE size AS
SELECT patients, patients * 10 AS appointments, providers, 40 AS cities, 30 AS specialties,
       1095 AS days, date_trunc('day', now()) AS today
  FROM (SELECT CAST(current_setting('clinic.patients') AS bigint) AS patients,
               CAST(current_setting('clinic.providers') AS bigint) AS providers) AS given;

-- The last of each (1 in 200) are soft-deleted and have nothing that refers to them.
ALTER TABLE size ADD live_patients bigint, ADD live_providers bigint;
UPDATE size SET live_patients = patients * 199 / 200, live_providers = providers * 199 / 200;

-- No index is kept up while rows come in, not even a primary key's: REINDEX makes it, checks what
-- is unique and marks it as good. This halves the time, and each index stays as it was defined.
CREATE TEMPORARY TABLE set_aside AS
SELECT i.indexrelid
  FROM pg_index i
  JOIN pg_class t ON t.oid = i.indrelid AND t.relkind = 'r'
  JOIN pg_namespace n ON n.oid = t.relnamespace
 WHERE n.nspname IN ('providers', 'patients', 'bookings');
UPDATE pg_index SET indisready = false, indisvalid = false
 WHERE indexrelid IN (SELECT indexrelid FROM set_aside);

INSERT INTO public.city (id, country_code, region, name)
SELECT pg_temp.key('city', k), 'DE', 'Region ' || k % 8, 'City ' || k
  FROM size, generate_series(0, cities - 1) AS k;

-- Five fields, the rest below one of them.
INSERT INTO public.specialty (id, parent_id, name)
SELECT pg_temp.key('specialty', k),
       CASE WHEN k >= 5 THEN pg_temp.key('specialty', k % 5) END, 'Specialty ' || k
  FROM size, generate_series(0, specialties - 1) AS k;

-- The first city and the first specialty have the most.
INSERT INTO providers.provider (id, display_name, specialty_id, city_id, is_available, created_at, deleted_at)
SELECT pg_temp.key('provider', k), 'Dr ' || initcap(left(translate(md5('n' || k), '0123456789', 'aeioulmnrs'), 9)),
       pg_temp.key('specialty', CAST(floor(specialties * pg_temp.u(k, 1) ^ 1.5) AS bigint)),
       pg_temp.key('city', CAST(floor(cities * pg_temp.u(k, 2) ^ 2) AS bigint)),
       pg_temp.u(k, 3) < 0.85, today - days * interval '1 day',
       CASE WHEN k >= live_providers THEN today END
  FROM size, generate_series(0, providers - 1) AS k;

-- Every third has another specialty as well.
INSERT INTO providers.provider_specialty (id, provider_id, specialty_id)
SELECT pg_temp.key('provider specialty', k), pg_temp.key('provider', k),
       pg_temp.key('specialty', (CAST(floor(specialties * pg_temp.u(k, 1) ^ 1.5) AS bigint)
                                 + 1 + CAST(floor((specialties - 1) * pg_temp.u(k, 6)) AS bigint)) % specialties)
  FROM size, generate_series(0, live_providers - 1, 3) AS k;

INSERT INTO providers.service (id, provider_id, name, duration_minutes, price, currency)
SELECT pg_temp.key('service', k * 4 + n), pg_temp.key('provider', k), 'Service ' || n,
       (ARRAY[15, 30, 45, 60])[n + 1], 40 + n * 25, 'EUR'
  FROM size, generate_series(0, live_providers - 1) AS k, generate_series(0, 3) AS n;

-- Mornings and afternoons of working days, a month back and two months ahead.
INSERT INTO providers.availability (id, provider_id, starts_at, ends_at)
SELECT pg_temp.key('availability', (k * 100 + d) * 2 + half), pg_temp.key('provider', k),
       today + (d - 30) * interval '1 day' + (ARRAY[9, 13])[half + 1] * interval '1 hour',
       today + (d - 30) * interval '1 day' + (ARRAY[12, 18])[half + 1] * interval '1 hour'
  FROM size, generate_series(0, live_providers - 1) AS k, generate_series(0, 89) AS d,
       generate_series(0, 1) AS half
 WHERE extract(isodow FROM today + (d - 30) * interval '1 day') <= 5;

-- Two share each telephone; the commonest names belong to dozens.
INSERT INTO patients.patient (id, name_ciphertext, email_ciphertext, email_blind_index,
                              phone_ciphertext, phone_blind_index, name_blind_index,
                              birth_date_ciphertext, created_at, deleted_at)
SELECT pg_temp.key('patient', k), pg_temp.cipher('name', k, 4), pg_temp.cipher('email', k, 4),
       pg_temp.cipher('email blind', k, 1), pg_temp.cipher('phone', k, 3),
       pg_temp.cipher('phone blind', k - k % 2, 1),
       pg_temp.cipher('name blind', CAST(floor(patients / 5 * pg_temp.u(k, 7) ^ 1.3) AS bigint), 1),
       pg_temp.cipher('birth', k, 3), today - days * interval '1 day' * (1 - k::float8 / patients),
       CASE WHEN k >= live_patients THEN today END
  FROM size, generate_series(0, patients - 1) AS k;

INSERT INTO patients.preference (id, patient_id, name, value)
SELECT pg_temp.key('preference', k), pg_temp.key('patient', k), 'reminder', '{"channel": "sms", "hours": 24}'
  FROM size, generate_series(0, live_patients - 1) AS k;

-- Three of five patients have none, a few have twenty.
INSERT INTO patients.health_condition (id, patient_id, condition_ciphertext, recorded_at)
SELECT pg_temp.key('condition', k * 32 + n), pg_temp.key('patient', k),
       pg_temp.cipher('condition', k * 32 + n, 6), today - days * interval '1 day' * pg_temp.u(k * 32 + n, 4)
  FROM size, generate_series(0, live_patients - 1) AS k,
       generate_series(1, CAST(floor(20 * greatest(0, pg_temp.u(k, 5) - 0.6) ^ 3 / 0.064) AS integer)) AS n;

-- In the order they were booked, more each day. The first provider has one in fifty of all, the
-- first patient hundreds: most have few.
INSERT INTO bookings.appointment (id, provider_id, patient_id, service_id, appointment_at, status,
                                  notes_ciphertext, created_at, updated_at, deleted_at)
SELECT pg_temp.key('appointment', i), pg_temp.key('provider', provider),
       pg_temp.key('patient', patient), pg_temp.key('service', provider * 4 + service), appointment_at,
       CASE WHEN appointment_at < today
            THEN CASE WHEN chance < 0.78 THEN 'completed' WHEN chance < 0.90 THEN 'cancelled'
                      WHEN chance < 0.98 THEN 'no_show' ELSE 'confirmed' END
            ELSE CASE WHEN chance < 0.70 THEN 'confirmed' WHEN chance < 0.90 THEN 'requested'
                      ELSE 'cancelled' END END,
       CASE WHEN noted < 0.3 THEN pg_temp.cipher('notes', i, 6 + CAST(floor(noted * 50) AS integer)) END,
       booked_at, booked_at, CASE WHEN pg_temp.u(i, 11) < 0.005 THEN today END
  FROM (SELECT i, today, booked_at, pg_temp.u(i, 12) AS chance, pg_temp.u(i, 13) AS noted,
               CAST(floor(live_providers * pg_temp.u(i, 14) ^ 2) AS bigint) AS provider,
               CAST(floor(live_patients * pg_temp.u(i, 15) ^ 1.5) AS bigint) AS patient,
               CAST(floor(4 * pg_temp.u(i, 16)) AS bigint) AS service,
               date_trunc('day', booked_at - 20 * ln(1 - pg_temp.u(i, 17)) * interval '1 day')
               + interval '8 hours' + floor(40 * pg_temp.u(i, 18)) * interval '15 minutes' AS appointment_at
          FROM (SELECT size.*, i,
                       today - days * interval '1 day' * (1 - (CAST(i AS float8) / appointments) ^ 0.7)
                       AS booked_at
                  FROM size, generate_series(0, appointments - 1) AS i OFFSET 0) AS dated
        OFFSET 0) AS booked;

-- What became of a visit is a hash of its key.
INSERT INTO bookings.payment (id, appointment_id, amount, currency, status, created_at, updated_at)
SELECT pg_temp.key('payment', id), id, 40 + 25 * (CAST(floor(400 * chance) AS integer) % 4), 'EUR',
       CASE WHEN chance < 0.94 THEN 'paid' WHEN chance < 0.97 THEN 'refunded'
            WHEN chance < 0.98 THEN 'failed' ELSE 'pending' END,
       appointment_at, appointment_at
  FROM (SELECT *, pg_temp.u(visit, 20) AS chance
          FROM (SELECT id, appointment_at, uuid_hash_extended(id, 0) AS visit
                  FROM bookings.appointment
                 WHERE status = 'completed' AND deleted_at IS NULL OFFSET 0) AS completed
        OFFSET 0) AS paid;

INSERT INTO bookings.review (id, appointment_id, rating, comment_ciphertext, created_at, updated_at)
SELECT pg_temp.key('review', id), id, 5 - floor(5 * (chance * 5) ^ 3),
       CASE WHEN chance < 0.08 THEN pg_temp.cipher('comment', visit, 10) END,
       appointment_at + interval '1 day', appointment_at + interval '1 day'
  FROM (SELECT *, pg_temp.u(visit, 21) AS chance
          FROM (SELECT id, appointment_at, uuid_hash_extended(id, 0) AS visit
                  FROM bookings.appointment
                 WHERE status = 'completed' AND deleted_at IS NULL OFFSET 0) AS completed
        OFFSET 0) AS reviewed
 WHERE chance < 0.2;

DO $$
DECLARE index regclass;
BEGIN
    FOR index IN SELECT indexrelid FROM set_aside LOOP EXECUTE 'REINDEX INDEX ' || index; END LOOP;
END $$;

DO $$
DECLARE report regclass;
BEGIN
    FOR report IN SELECT oid FROM pg_class WHERE relkind = 'm' LOOP
        EXECUTE 'REFRESH MATERIALIZED VIEW ' || report;
    END LOOP;
END $$;
