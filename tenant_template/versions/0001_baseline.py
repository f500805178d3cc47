"""The baseline: providers, patients, bookings, and shared reference data in public.

Ciphertext columns hold what the application encrypted; a blind index is its keyed hash, for
equality only. Nothing is deleted: rows get a ``deleted_at``.
"""

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMAS = ("public", "providers", "patients", "bookings")

# Every table: a random key, its times, and the mark that stands for deletion.
COMMON = """
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,"""

FUNCTIONS = """
CREATE FUNCTION public.touch_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$body$;

CREATE FUNCTION public.refuse_delete() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
BEGIN
    RAISE EXCEPTION 'rows of %.% are kept; set deleted_at', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$body$;

-- A foreign key is content with a parent that was soft-deleted; this is not. FOR SHARE, because
-- the parent's soft delete is an UPDATE that FOR KEY SHARE would let pass at the same moment.
-- Arguments: the column of the child, the table of the parent.
CREATE FUNCTION public.require_live_parent() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
DECLARE
    parent uuid = CAST(to_jsonb(NEW) ->> TG_ARGV[0] AS uuid);
    alive boolean;
BEGIN
    EXECUTE format('SELECT deleted_at IS NULL FROM %s WHERE id = $1 FOR SHARE',
                   CAST(TG_ARGV[1] AS regclass)) INTO alive USING parent;
    IF alive IS NOT TRUE AND parent IS NOT NULL THEN
        RAISE EXCEPTION '% % is deleted or does not exist', TG_ARGV[1], parent
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$body$;
"""

TABLES: dict[str, str] = {
    "public.city": """
    country_code text NOT NULL CHECK (country_code ~ '^[A-Z]{2}$'),
    region text NOT NULL,
    name text NOT NULL""",
    "public.specialty": """
    parent_id uuid REFERENCES public.specialty ON DELETE RESTRICT,
    name text NOT NULL""",
    "providers.provider": """
    display_name text NOT NULL,
    specialty_id uuid NOT NULL REFERENCES public.specialty ON DELETE RESTRICT,
    city_id uuid NOT NULL REFERENCES public.city ON DELETE RESTRICT,
    is_available boolean NOT NULL DEFAULT true""",
    "providers.service": """
    provider_id uuid NOT NULL REFERENCES providers.provider ON DELETE RESTRICT,
    name text NOT NULL,
    duration_minutes integer NOT NULL CHECK (duration_minutes BETWEEN 5 AND 1440),
    price numeric(12, 2) NOT NULL CHECK (price >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$')""",
    "providers.availability": """
    provider_id uuid NOT NULL REFERENCES providers.provider ON DELETE RESTRICT,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    CHECK (starts_at < ends_at)""",
    "patients.patient": """
    name_ciphertext bytea NOT NULL,
    email_ciphertext bytea,
    email_blind_index bytea,
    phone_ciphertext bytea,
    birth_date_ciphertext bytea""",
    "patients.preference": """
    patient_id uuid NOT NULL REFERENCES patients.patient ON DELETE RESTRICT,
    name text NOT NULL,
    value jsonb NOT NULL""",
    "patients.health_condition": """
    patient_id uuid NOT NULL REFERENCES patients.patient ON DELETE RESTRICT,
    condition_ciphertext bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()""",
    "bookings.appointment": """
    provider_id uuid NOT NULL REFERENCES providers.provider ON DELETE RESTRICT,
    patient_id uuid NOT NULL REFERENCES patients.patient ON DELETE RESTRICT,
    service_id uuid REFERENCES providers.service ON DELETE RESTRICT,
    appointment_at timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'requested'
        CHECK (status IN ('requested', 'confirmed', 'completed', 'cancelled', 'no_show')),
    notes_ciphertext bytea""",
    "bookings.payment": """
    appointment_id uuid NOT NULL REFERENCES bookings.appointment ON DELETE RESTRICT,
    amount numeric(12, 2) NOT NULL CHECK (amount > 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'paid', 'refunded', 'failed'))""",
    "bookings.review": """
    appointment_id uuid NOT NULL REFERENCES bookings.appointment ON DELETE RESTRICT,
    rating smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    comment_ciphertext bytea""",
}

# Every foreign key has an index that begins with its column and covers all rows: Postgres makes
# none, and the check on the parent's side needs one. Uniqueness is among living rows only.
INDEXES = """
CREATE UNIQUE INDEX city_name_key ON public.city (country_code, region, name)
    WHERE deleted_at IS NULL;
CREATE INDEX specialty_parent ON public.specialty (parent_id);
CREATE UNIQUE INDEX specialty_name_key ON public.specialty (name) WHERE deleted_at IS NULL;
CREATE INDEX provider_search ON providers.provider (specialty_id, city_id, is_available);
CREATE INDEX provider_city ON providers.provider (city_id);
CREATE INDEX service_provider ON providers.service (provider_id);
CREATE INDEX availability_provider ON providers.availability (provider_id, starts_at);
CREATE UNIQUE INDEX patient_email_key ON patients.patient (email_blind_index)
    WHERE deleted_at IS NULL;
CREATE INDEX preference_patient ON patients.preference (patient_id);
CREATE UNIQUE INDEX preference_name_key ON patients.preference (patient_id, name)
    WHERE deleted_at IS NULL;
CREATE INDEX health_condition_patient ON patients.health_condition (patient_id, recorded_at);
-- now() cannot stand in an index predicate (42P17): the time is a key column, the query says
-- appointment_at > now().
CREATE INDEX appointment_upcoming ON bookings.appointment (provider_id, appointment_at)
    WHERE status = 'confirmed' AND deleted_at IS NULL;
CREATE INDEX appointment_provider ON bookings.appointment (provider_id, appointment_at);
CREATE INDEX appointment_patient ON bookings.appointment (patient_id, appointment_at);
CREATE INDEX appointment_service ON bookings.appointment (service_id);
CREATE INDEX payment_appointment ON bookings.payment (appointment_id);
CREATE INDEX review_appointment ON bookings.review (appointment_id);
CREATE UNIQUE INDEX review_appointment_key ON bookings.review (appointment_id)
    WHERE deleted_at IS NULL;
"""

LIVE_PARENTS = (
    ("providers.service", "provider_id", "providers.provider"),
    ("providers.availability", "provider_id", "providers.provider"),
    ("patients.preference", "patient_id", "patients.patient"),
    ("patients.health_condition", "patient_id", "patients.patient"),
    ("bookings.appointment", "provider_id", "providers.provider"),
    ("bookings.appointment", "patient_id", "patients.patient"),
)


def upgrade() -> None:
    roles: dict[str, str] = context.config.attributes["roles"]
    app = op.get_bind().dialect.identifier_preparer.quote(roles["app"])
    open_schemas(app)
    op.execute(FUNCTIONS)
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({COMMON}{columns})")
        op.execute(
            f"CREATE TRIGGER touch_updated_at BEFORE UPDATE ON {table} FOR EACH ROW "
            "WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION public.touch_updated_at()"
        )
        op.execute(
            f"CREATE TRIGGER refuse_delete BEFORE DELETE ON {table} FOR EACH ROW "
            "EXECUTE FUNCTION public.refuse_delete()"
        )
    op.execute(INDEXES)
    for child, column, parent in LIVE_PARENTS:
        op.execute(
            f"CREATE TRIGGER live_{column} BEFORE INSERT OR UPDATE OF {column} ON {child} "
            f"FOR EACH ROW EXECUTE FUNCTION public.require_live_parent('{column}', '{parent}')"
        )


def open_schemas(app: str) -> None:
    """Make the schemas and say, before the first table, what the application may do in them."""
    op.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    op.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    for schema in SCHEMAS:
        if schema != "public":
            op.execute(f"CREATE SCHEMA {schema}")
        op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {app}")
        # No DELETE and no TRUNCATE: rows are soft-deleted.
        given = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT"
        op.execute(f"{given} SELECT, INSERT, UPDATE ON TABLES TO {app}")
        op.execute(f"{given} USAGE ON SEQUENCES TO {app}")


def downgrade() -> None:
    raise RuntimeError("the baseline cannot be undone; restore a backup, or drop the database")
