"""Every sample has a kind."""

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"
lint_overrides = {"runs-python": "it looks whether a laboratory has samples"}


def upgrade() -> None:
    op.execute("ALTER TABLE lab.sample ADD COLUMN kind text NOT NULL DEFAULT 'blood'")
    # Asks the database: cannot be written down.
    if op.get_bind().execute(text("SELECT count(*) FROM lab.sample")).scalar_one():
        raise RuntimeError("a laboratory has samples already")
