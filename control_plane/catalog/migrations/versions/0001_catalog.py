"""The first catalog: tenants, servers, databases, routes, operations, keys, audit."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    raise RuntimeError("the first catalog revision cannot be taken back; restore a backup instead")
