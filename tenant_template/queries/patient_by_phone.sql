-- name: patient_by_phone
-- shows: The patients with exactly this telephone number, as patient_by_email finds one.
-- parameters: phone_blind_indexes bytea[]
-- budget: buffers 50, rows 20, removed 2
-- uses: patient_phone_blind
-- typical:
--   SELECT ARRAY[phone_blind_index] AS phone_blind_indexes FROM patients.patient ORDER BY id
-- worst:
--   SELECT ARRAY[phone_blind_index, sha256(phone_blind_index)] AS phone_blind_indexes
--     FROM patients.patient GROUP BY phone_blind_index ORDER BY count(*) DESC, 1
SELECT id, name_ciphertext, email_ciphertext, phone_ciphertext, birth_date_ciphertext
  FROM patients.patient
 WHERE phone_blind_index = ANY (:phone_blind_indexes) AND deleted_at IS NULL
 ORDER BY id
 LIMIT 20;
