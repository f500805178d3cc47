"""Indexes for the blind indexes of 0002, made while the clinic works."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Not partial: whoever looks for a patient need not say that the row is alive.
INDEXES = {
    "patient_name_blind": "patients.patient (name_blind_index)",
    "patient_phone_blind": "patients.patient (phone_blind_index)",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {columns}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS patients.{name}")
