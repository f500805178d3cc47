-- name: patient_by_name
-- shows: The patients with exactly this name, as patient_by_email finds one.
-- parameters: name_blind_indexes bytea[]
-- budget: buffers 150, rows 100, removed 2
-- uses: patient_name_blind
-- typical:
--   SELECT ARRAY[name_blind_index] AS name_blind_indexes FROM patients.patient ORDER BY id
-- worst:
--   SELECT ARRAY[name_blind_index, sha256(name_blind_index)] AS name_blind_indexes
--     FROM patients.patient GROUP BY name_blind_index ORDER BY count(*) DESC, 1
SELECT id, name_ciphertext, email_ciphertext, phone_ciphertext, birth_date_ciphertext
  FROM patients.patient
 WHERE name_blind_index = ANY (:name_blind_indexes) AND deleted_at IS NULL
 ORDER BY id
 LIMIT 100;
