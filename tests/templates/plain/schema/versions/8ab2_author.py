"""author

Revision ID: 8ab2
Revises: 3f1c
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "8ab2"
down_revision: str | Sequence[str] | None = "3f1c"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("note", sa.Column("author", sa.String(80)))
    op.create_index("note_author", "note", ["author"])


def downgrade() -> None:
    op.drop_column("note", "author")
