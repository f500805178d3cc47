"""The audit log: who changed and read what, append-only, sealed block by block.

It belongs to the auditor, a role that nobody can become, so this revision runs as the one who
connects (the administrator). Its login need not be a superuser where one role plays every part.
"""

from pathlib import Path

from alembic import context, op

revision = "0010"
down_revision = "0005"
branch_labels = None
depends_on = None

privileged = True


def upgrade() -> None:
    roles: dict[str, str] = context.config.attributes["roles"]
    quote = op.get_context().dialect.identifier_preparer.quote
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    for role in ("owner", "app", "auditor"):
        sql = sql.replace(f"{{{role}}}", quote(roles[role]))
    op.execute(sql)


def downgrade() -> None:
    raise RuntimeError("the audit log is kept: this revision cannot be taken back")
