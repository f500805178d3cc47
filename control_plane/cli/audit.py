"""``tenantry audit``: who did what to what, when and from where."""

import click

from control_plane.cli.commands import Command
from control_plane.cli.complete import tenant_slugs
from control_plane.cli.durations import Since
from control_plane.cli.options import limit_option
from control_plane.cli.output import when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table

_LATEST = 200


@click.command(
    "audit",
    cls=Command,
    examples=(
        "tenantry audit --tenant acme --since 24h",
        "tenantry audit --since 2026-01-31T08:00:00Z --utc",
    ),
)
@click.option("--tenant", shell_complete=tenant_slugs, help="Only about this tenant.")
@click.option("--since", type=Since(), help="How far back: 24h, 7d, or a time.")
@limit_option(default=_LATEST)
@pass_session
def audit(session: Session, tenant: str | None, since: str | None, limit: int) -> None:
    """Show the audit log, newest first."""
    columns = (
        Column("WHEN", lambda e: when(session, e["at"])),
        Column("WHO", lambda e: e["actor"]),
        Column("DID", lambda e: e["action"]),
        Column("OUTCOME", lambda e: e["outcome"], words=True),
        Column("TO", lambda e: e["subject"]),
        Column("FROM", lambda e: e.get("address")),
        Column("WHY", _why),
    )
    found = session.api.items(path("audit"), {"tenant": tenant, "since": since}, most=limit)
    print_table(session, found, columns, "no audit events")


def _why(event: Json) -> str:
    facts = (event.get("facts") or {}).items()
    told = [f"{name}={_words(value)}" for name, value in facts if value not in (None, [])]
    return " ".join(part for part in (event.get("reason"), *told) if part)


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
