-- A living patient, and the line that says who looked. VOLATILE, because it writes: in a read-only
-- transaction and on a replica it fails (25006).
CREATE FUNCTION patients.get_patient(id uuid) RETURNS SETOF patients.patient
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM audit.note_read('patients.patient', CAST(get_patient.id AS text),
                            '{"by": "get_patient"}');
    RETURN QUERY SELECT p.* FROM patients.patient p
                  WHERE p.id = get_patient.id AND p.deleted_at IS NULL;
END
$body$;

CREATE FUNCTION patients.find_patients_by_email(blind_index bytea) RETURNS SETOF patients.patient
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    found uuid[] := ARRAY(SELECT p.id FROM patients.patient p
                           WHERE p.email_blind_index = blind_index AND p.deleted_at IS NULL);
    one uuid;
BEGIN
    IF cardinality(found) = 0 THEN
        PERFORM audit.note_read('patients.patient', NULL,
                                '{"by": "find_patients_by_email", "found": 0}');
    END IF;
    FOREACH one IN ARRAY found LOOP
        PERFORM audit.note_read('patients.patient', CAST(one AS text),
                                '{"by": "find_patients_by_email"}');
    END LOOP;
    RETURN QUERY SELECT p.* FROM patients.patient p WHERE p.id = ANY (found);
END
$body$;

CREATE FUNCTION patients.get_health_conditions(patient uuid)
RETURNS SETOF patients.health_condition
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM audit.note_read('patients.patient', CAST(patient AS text),
                            '{"by": "get_health_conditions"}');
    RETURN QUERY SELECT c.* FROM patients.health_condition c
                  WHERE c.patient_id = patient AND c.deleted_at IS NULL
                  ORDER BY c.recorded_at, c.id;
END
$body$;
GRANT EXECUTE ON FUNCTION patients.get_patient(uuid), patients.find_patients_by_email(bytea),
    patients.get_health_conditions(uuid) TO {app};
