-- name: patient_by_email
-- shows: The patient with an e-mail address. The address never reaches the database: its blind index
--   does, one under each version of the key while keys rotate.
-- parameters: email_blind_indexes bytea[]
-- budget: buffers 20, rows 2, removed 1
-- uses: patient_email_key
-- typical:
--   SELECT ARRAY[email_blind_index] AS email_blind_indexes FROM patients.patient ORDER BY id
-- worst:
--   SELECT ARRAY[email_blind_index, sha256(email_blind_index)] AS email_blind_indexes
--     FROM patients.patient ORDER BY id DESC
SELECT id, name_ciphertext, email_ciphertext, phone_ciphertext, birth_date_ciphertext
  FROM patients.patient
 WHERE email_blind_index = ANY (:email_blind_indexes) AND deleted_at IS NULL
 LIMIT 2;
