"""Every table of the domains writes to the audit log; patients are read through functions.

A table that a later revision adds needs the two triggers as well; docs/clinic-template.md has
them.
"""

from pathlib import Path

from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = (
    "public.city",
    "public.specialty",
    "providers.provider",
    "providers.provider_specialty",
    "providers.service",
    "providers.availability",
    "patients.patient",
    "patients.preference",
    "patients.health_condition",
    "bookings.appointment",
    "bookings.payment",
    "bookings.review",
)

# For pgaudit's object mode, whose role is the auditor: a statement that touches one of these is
# logged by the server. The auditor may not enter the schemas, so it cannot read them.
PHI = {
    "patients.patient": (
        "name_ciphertext",
        "email_ciphertext",
        "phone_ciphertext",
        "birth_date_ciphertext",
        "name_blind_index",
        "email_blind_index",
        "phone_blind_index",
    ),
    "patients.health_condition": (
        "condition_ciphertext",
        "code_ciphertext",
        "notes_ciphertext",
    ),
    "bookings.appointment": ("notes_ciphertext",),
    "bookings.review": ("comment_ciphertext",),
}


def upgrade() -> None:
    roles: dict[str, str] = context.config.attributes["roles"]
    quote = op.get_context().dialect.identifier_preparer.quote
    for table in TABLES:
        # Triggers of one kind fire in the order of their names: this one sees what others made.
        op.execute(
            f"CREATE TRIGGER zz_audit AFTER INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION audit.capture('id')"
        )
        op.execute(
            f"CREATE TRIGGER zz_audit_truncate AFTER TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit.capture()"
        )
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.execute(sql.replace("{app}", quote(roles["app"])))
    for table, columns in PHI.items():
        op.execute(f"GRANT SELECT ({', '.join(columns)}) ON {table} TO {quote(roles['auditor'])}")


def downgrade() -> None:
    raise RuntimeError("writes stay audited: this revision cannot be taken back")
