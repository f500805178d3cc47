"""Moves between servers: both databases of one, its evidence, whose clients a pause holds."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    raise RuntimeError("this catalog revision cannot be taken back; restore a backup instead")
