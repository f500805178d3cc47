"""notes

Revision ID: 3f1c
Revises:
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "3f1c"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "note",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("mood", sa.Enum("good", "bad", name="mood"), nullable=False),
        sa.Column("text", sa.Text(), server_default="it's 100%: fine", nullable=False),
    )
    op.execute("CREATE FUNCTION notes() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM note'")


def downgrade() -> None:
    op.drop_table("note")
