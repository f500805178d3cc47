-- name: patient_conditions
-- shows: A patient's health conditions, the newest first.
-- parameters: patient_id uuid
-- budget: buffers 120, rows 100, removed 2
-- uses: health_condition_patient
-- typical:
--   SELECT id AS patient_id FROM patients.patient ORDER BY id
-- worst:
--   SELECT patient_id FROM patients.health_condition GROUP BY 1 ORDER BY count(*) DESC, 1
SELECT id, condition_ciphertext, recorded_at
  FROM patients.health_condition
 WHERE patient_id = :patient_id AND deleted_at IS NULL
 ORDER BY recorded_at DESC, id
 LIMIT 100;
