"""Soft delete that holds, rights by domain and column, several specialties, blind indexes.

Every change is one of the catalogs only: no table is rewritten or scanned, so each lock is held
for a moment. Constraints are made NOT VALID and validated in 0004; indexes on tables that have
rows are made in 0003.
"""

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOMAINS = ("public", "providers", "patients", "bookings")

FUNCTIONS = """
CREATE OR REPLACE FUNCTION public.refuse_delete() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION 'rows of %.% are kept; call public.soft_delete', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$body$;

-- A foreign key is content with a parent that was soft-deleted; this is not. FOR SHARE, because
-- the parent's soft delete is an UPDATE that FOR KEY SHARE would let pass at the same moment.
-- Arguments: the column of the child, the table of the parent. SECURITY DEFINER: to lock a parent
-- one must be allowed to update it, and whoever adds a child need not be.
CREATE OR REPLACE FUNCTION public.require_live_parent() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    parent uuid = CAST(to_jsonb(NEW) ->> TG_ARGV[0] AS uuid);
    alive boolean;
BEGIN
    IF parent IS NULL THEN
        RETURN NEW;
    END IF;
    EXECUTE format('SELECT deleted_at IS NULL FROM %s WHERE id = $1 FOR SHARE',
                   CAST(TG_ARGV[1] AS regclass)) INTO alive USING parent;
    IF alive IS NOT TRUE THEN
        RAISE EXCEPTION '% % is deleted or does not exist', TG_ARGV[1], parent
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$body$;

-- ON DELETE RESTRICT for the soft delete. The row is locked before this runs, so a child that was
-- being added is committed and seen, or waits for us; but only a snapshot taken after that lock
-- sees it, and an isolation level above READ COMMITTED would look at an older one.
CREATE FUNCTION public.refuse_orphans() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    child record;
    living boolean;
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'soft delete of a row of %.% needs the isolation level READ COMMITTED',
            TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'invalid_transaction_state';
    END IF;
    FOR child IN
        SELECT CAST(c.conrelid AS regclass) AS relation, k.attname AS part,
               CASE WHEN d.attnum IS NULL THEN '' ELSE 'AND deleted_at IS NULL' END AS alive
          FROM pg_constraint c
          JOIN pg_attribute k ON k.attrelid = c.conrelid AND k.attnum = c.conkey[1]
          LEFT JOIN pg_attribute d ON d.attrelid = c.conrelid AND d.attname = 'deleted_at'
         WHERE c.confrelid = TG_RELID AND c.contype = 'f'
         ORDER BY 1, 2
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I = $1 %s)',
                       child.relation, child.part, child.alive) INTO living USING OLD.id;
        IF living THEN
            RAISE EXCEPTION '%.% % still has living rows in %; soft-delete those first',
                TG_TABLE_SCHEMA, TG_TABLE_NAME, OLD.id, child.relation
                USING ERRCODE = 'foreign_key_violation';
        END IF;
    END LOOP;
    RETURN NEW;
END
$body$;

-- The only way for an application to delete: whether a living row had this id. The tables it works
-- on are those of our owner that refuse DELETE.
CREATE FUNCTION public.soft_delete(relation regclass, id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    deleted bigint;
BEGIN
    IF reason IS NULL OR reason !~ '\\S' THEN
        RAISE EXCEPTION 'soft_delete needs a reason' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger t
                     JOIN pg_class c ON c.oid = t.tgrelid
                    WHERE t.tgrelid = relation AND t.tgname = 'refuse_delete'
                      AND pg_get_userbyid(c.relowner) = current_user) THEN
        RAISE EXCEPTION 'rows of % are not soft-deleted', coalesce(CAST(relation AS text), 'NULL')
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('UPDATE %s SET deleted_at = now(), deleted_reason = $2 '
                   'WHERE id = $1 AND deleted_at IS NULL', relation) USING id, btrim(reason);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted = 1;
END
$body$;
"""

# Beside the main specialty, which stays in providers.provider: the search index begins with it.
PROVIDER_SPECIALTY = """
CREATE TABLE providers.provider_specialty (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    provider_id uuid NOT NULL REFERENCES providers.provider ON DELETE RESTRICT,
    specialty_id uuid NOT NULL REFERENCES public.specialty ON DELETE RESTRICT);
CREATE INDEX provider_specialty_provider ON providers.provider_specialty (provider_id);
CREATE INDEX provider_specialty_specialty
    ON providers.provider_specialty (specialty_id, provider_id);
CREATE UNIQUE INDEX provider_specialty_key
    ON providers.provider_specialty (provider_id, specialty_id) WHERE deleted_at IS NULL;
CREATE TRIGGER touch_updated_at BEFORE UPDATE ON providers.provider_specialty FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION public.touch_updated_at();
CREATE TRIGGER refuse_delete BEFORE DELETE ON providers.provider_specialty FOR EACH ROW
    EXECUTE FUNCTION public.refuse_delete();
"""

# The clinical status is FHIR's (Condition.clinicalStatus). Code and notes are encrypted and have no
# blind index: a diagnosis is one of few, and equality alone would give it away.
COLUMNS = """
ALTER TABLE patients.patient ADD COLUMN name_blind_index bytea, ADD COLUMN phone_blind_index bytea;
ALTER TABLE patients.health_condition
    ADD COLUMN code_ciphertext bytea,
    ADD COLUMN notes_ciphertext bytea,
    ADD COLUMN clinical_status text NOT NULL DEFAULT 'active';
ALTER TABLE patients.health_condition ADD CONSTRAINT health_condition_clinical_status_check
    CHECK (clinical_status IN ('active', 'recurrence', 'relapse', 'inactive', 'remission',
                               'resolved')) NOT VALID;
"""

# What the application writes, table by table. The rest (id after the insert, the times, the mark
# of deletion and its reason) is the database's own.
WRITABLE: dict[str, tuple[str, ...]] = {
    "public.city": ("country_code", "region", "name"),
    "public.specialty": ("parent_id", "name"),
    "providers.provider": ("display_name", "specialty_id", "city_id", "is_available"),
    "providers.provider_specialty": ("provider_id", "specialty_id"),
    "providers.service": ("provider_id", "name", "duration_minutes", "price", "currency"),
    "providers.availability": ("provider_id", "starts_at", "ends_at"),
    "patients.patient": (
        "name_ciphertext",
        "email_ciphertext",
        "email_blind_index",
        "phone_ciphertext",
        "birth_date_ciphertext",
        "name_blind_index",
        "phone_blind_index",
    ),
    "patients.preference": ("patient_id", "name", "value"),
    "patients.health_condition": (
        "patient_id",
        "condition_ciphertext",
        "recorded_at",
        "code_ciphertext",
        "notes_ciphertext",
        "clinical_status",
    ),
    "bookings.appointment": (
        "provider_id",
        "patient_id",
        "service_id",
        "appointment_at",
        "status",
        "notes_ciphertext",
    ),
    "bookings.payment": ("appointment_id", "amount", "currency", "status"),
    "bookings.review": ("appointment_id", "rating", "comment_ciphertext"),
}
TIMES = ("created_at", "updated_at", "deleted_at")

# What the reader sees beside key and times: nothing encrypted, no blind index, no free text about a
# patient. Of patients.health_condition nothing at all: that a row exists says that one is ill.
READABLE: dict[str, tuple[str, ...]] = {
    **{table: WRITABLE[table] for table in WRITABLE if table.startswith(("public.", "providers."))},
    "patients.patient": (),
    "patients.preference": ("patient_id", "name"),
    "bookings.appointment": (
        "provider_id",
        "patient_id",
        "service_id",
        "appointment_at",
        "status",
    ),
    "bookings.payment": WRITABLE["bookings.payment"],
    "bookings.review": ("appointment_id", "rating"),
}

PARENTS = (
    ("public.specialty", "parent_id", "public.specialty"),
    ("providers.provider", "specialty_id", "public.specialty"),
    ("providers.provider", "city_id", "public.city"),
    ("providers.provider_specialty", "provider_id", "providers.provider"),
    ("providers.provider_specialty", "specialty_id", "public.specialty"),
    ("providers.service", "provider_id", "providers.provider"),
    ("providers.availability", "provider_id", "providers.provider"),
    ("patients.preference", "patient_id", "patients.patient"),
    ("patients.health_condition", "patient_id", "patients.patient"),
    ("bookings.appointment", "provider_id", "providers.provider"),
    ("bookings.appointment", "patient_id", "patients.patient"),
    ("bookings.appointment", "service_id", "providers.service"),
    ("bookings.payment", "appointment_id", "bookings.appointment"),
    ("bookings.review", "appointment_id", "bookings.appointment"),
)

CIPHERTEXT = "encrypted by the application (AES-256-GCM, bound to tenant, table, column and row)"
BLIND_INDEX = "keyed hash of the normalised value (HMAC-SHA256, truncated): equality only"
COMMENTS = {
    "patients.patient.name_ciphertext": f"The patient's name, {CIPHERTEXT}",
    "patients.patient.email_ciphertext": f"The e-mail address, {CIPHERTEXT}",
    "patients.patient.phone_ciphertext": f"The telephone number, {CIPHERTEXT}",
    "patients.patient.birth_date_ciphertext": f"The date of birth, {CIPHERTEXT}",
    "patients.patient.name_blind_index": f"The name, {BLIND_INDEX}; not unique",
    "patients.patient.email_blind_index": f"The e-mail, {BLIND_INDEX}; unique among the living",
    "patients.patient.phone_blind_index": f"The number in E.164, {BLIND_INDEX}; not unique",
    "patients.health_condition.condition_ciphertext": f"The condition in words, {CIPHERTEXT}",
    "patients.health_condition.code_ciphertext": f"Its code, such as ICD-10, {CIPHERTEXT}",
    "patients.health_condition.notes_ciphertext": f"The clinician's notes, {CIPHERTEXT}",
    "bookings.appointment.notes_ciphertext": f"Notes on the appointment, {CIPHERTEXT}",
    "bookings.review.comment_ciphertext": f"What the patient wrote, {CIPHERTEXT}",
}


def upgrade() -> None:
    roles: dict[str, str] = context.config.attributes["roles"]
    app, reader = named(roles["app"]), named(roles["reader"])
    op.execute(FUNCTIONS)
    if app != named(roles["owner"]):
        take_back(app)
    op.execute(f"GRANT EXECUTE ON FUNCTION public.soft_delete(regclass, uuid, text) TO {app}")
    op.execute(PROVIDER_SPECIALTY)
    op.execute(COLUMNS)
    for table in WRITABLE:
        guard(table)
    for child, column, parent in PARENTS:
        op.execute(
            f"CREATE OR REPLACE TRIGGER live_{column} BEFORE INSERT OR UPDATE OF {column}, "
            f"deleted_at ON {child} FOR EACH ROW WHEN (NEW.deleted_at IS NULL) "
            f"EXECUTE FUNCTION public.require_live_parent('{column}', '{parent}')"
        )
    for table in WRITABLE:
        show(table, app, reader)
    for schema in DOMAINS:
        op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {reader}")
    for column, comment in COMMENTS.items():
        text = comment.replace("'", "''")
        op.execute(f"COMMENT ON COLUMN {column} IS '{text}'")


def named(role: str) -> str:
    """The role as SQL writes it; no connection is needed, so this compiles offline too."""
    return op.get_context().dialect.identifier_preparer.quote(role)


def take_back(app: str) -> None:
    """What the baseline gave for whole tables, and for every table made later."""
    for schema in DOMAINS:
        later = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}"
        op.execute(f"{later} REVOKE INSERT, UPDATE ON TABLES FROM {app}")
    for table in WRITABLE:
        if table != "providers.provider_specialty":
            op.execute(f"REVOKE INSERT, UPDATE ON {table} FROM {app}")


def guard(table: str) -> None:
    """The soft delete's own columns and triggers."""
    name = table.partition(".")[2]
    op.execute(f"ALTER TABLE {table} ADD COLUMN deleted_reason text")
    op.execute(
        f"ALTER TABLE {table} ADD CONSTRAINT {name}_deleted_reason_check "
        "CHECK (deleted_reason IS NULL OR deleted_at IS NOT NULL) NOT VALID"
    )
    op.execute(
        f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT "
        "EXECUTE FUNCTION public.refuse_delete()"
    )
    op.execute(
        f"CREATE TRIGGER refuse_orphans BEFORE UPDATE OF deleted_at ON {table} FOR EACH ROW "
        "WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) "
        "EXECUTE FUNCTION public.refuse_orphans()"
    )


def show(table: str, app: str, reader: str) -> None:
    """The view of the living, and who reads and writes which columns.

    The view runs with the rights of whoever asks (security_invoker): it hides rows and gives no
    right that the table does not, so row security put on the table later holds in it too.
    """
    columns = WRITABLE[table]
    listed = ", ".join(("id", *TIMES[:2], *columns))
    living = f"SELECT {listed} FROM {table} WHERE deleted_at IS NULL"  # noqa: S608 - names above
    op.execute(
        f"CREATE VIEW {table}_live WITH (security_barrier = true, security_invoker = true) "
        f"AS {living}"
    )
    written = ", ".join(columns)
    op.execute(f"GRANT SELECT, INSERT (id, {written}), UPDATE ({written}) ON {table} TO {app}")
    op.execute(f"GRANT SELECT ON {table}_live TO {app}")
    if table in READABLE:
        seen = ", ".join(("id", *TIMES, *READABLE[table]))
        op.execute(f"GRANT SELECT ({seen}) ON {table} TO {reader}")
        if READABLE[table] == columns:
            op.execute(f"GRANT SELECT ON {table}_live TO {reader}")


def downgrade() -> None:
    raise RuntimeError("rights that were taken back are not given again; restore a backup")
