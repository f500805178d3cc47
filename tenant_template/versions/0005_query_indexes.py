"""Indexes that a user-facing query needs and the tables did not have.

The queries are in ``queries/``; ``docs/query-budget.md`` says how each is held to its budget.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A revision outside of a transaction may be cut off between two indexes and run again: IF NOT
# EXISTS; an index that was left invalid is found and repaired by whoever runs the revision.
INDEXES = (
    # unpaid_payments. Most payments are paid, so this stays small.
    """CREATE INDEX CONCURRENTLY IF NOT EXISTS payment_pending
        ON bookings.payment (created_at, id) WHERE status = 'pending' AND deleted_at IS NULL""",
    # clinic_day: everything of a day, whoever's it is. With the provider in the key it is no
    # temptation to read the whole clinic's day for the day of one provider.
    """CREATE INDEX CONCURRENTLY IF NOT EXISTS appointment_day
        ON bookings.appointment (appointment_at, provider_id) WHERE deleted_at IS NULL""",
    # provider_reviews, provider_rating: the latest visits in order, from the index alone. Without
    # it a generic plan reads and sorts every appointment that the provider ever had.
    """CREATE INDEX CONCURRENTLY IF NOT EXISTS appointment_completed
        ON bookings.appointment (provider_id, appointment_at, id)
        WHERE status = 'completed' AND deleted_at IS NULL""",
)
NAMES = ("payment_pending", "appointment_day", "appointment_completed")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in INDEXES:
            op.execute(statement)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in NAMES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS bookings.{name}")
