"""Samples and what is measured in them."""

from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    roles = context.config.attributes["roles"]
    op.execute(f"""
        CREATE SCHEMA lab;
        GRANT USAGE ON SCHEMA lab TO {roles["app"]}, {roles["reader"]};
        CREATE TABLE lab.sample (id uuid PRIMARY KEY, taken_at timestamptz NOT NULL);
        GRANT SELECT, INSERT ON lab.sample TO {roles["app"]};
        GRANT SELECT (id) ON lab.sample TO {roles["reader"]};
    """)
