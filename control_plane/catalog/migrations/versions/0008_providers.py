"""Provided servers: Postgres servers that Tenantry has made, and may delete."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    raise RuntimeError("this catalog revision cannot be taken back; restore a backup instead")
