"""Lines of audit seals: a restore begins one, and what was anchored before stays."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    raise RuntimeError("this catalog revision cannot be taken back; restore a backup instead")
