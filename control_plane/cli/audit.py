"""``tenantry audit``: who did what here; ``audit verify``: whether a tenant's log is whole."""

import click

from control_plane.cli.commands import Group
from control_plane.cli.complete import tenant_slugs
from control_plane.cli.durations import Since
from control_plane.cli.options import limit_option
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table

_LATEST = 200


@click.group(
    "audit",
    cls=Group,
    invoke_without_command=True,
    examples=(
        "tenantry audit --tenant acme --since 24h",
        "tenantry audit verify acme",
        "tenantry audit --since 2026-01-31T08:00:00Z --utc",
    ),
)
@click.option("--tenant", shell_complete=tenant_slugs, help="Only about this tenant.")
@click.option("--since", type=Since(), help="How far back: 24h, 7d, or a time.")
@limit_option(default=_LATEST)
@pass_session
@click.pass_context
def audit(
    context: click.Context, session: Session, tenant: str | None, since: str | None, limit: int
) -> None:
    """Show the audit log of the control plane, newest first; or verify a tenant's own."""
    if context.invoked_subcommand is not None:
        return
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


@audit.command("verify", examples=("tenantry audit verify acme --json",))
@click.argument("slug", shell_complete=tenant_slugs)
@pass_session
def verify(session: Session, slug: str) -> None:
    """Recompute the sealed blocks of a tenant's audit log and compare them with their anchors.

    Exit 0 when every block is whole, 1 when something was changed; each difference names the block.
    """
    api = session.api.patiently()
    found = api.get(path("tenants", slug, "audit-seals", "verification"))
    if session.json:
        print_json(found)
    else:
        for difference in found["differences"]:
            print_line(f"{found['tenant']}: {difference}")
        counted = f"{found['rows']} rows in {found['blocks']} blocks"
        verdict = "verified" if found["verified"] else "NOT as sealed"
        waiting = f"{found['waiting']} not sealed yet"
        print_line(f"{verdict}: {counted}, {found['anchored']} anchored; {waiting}")
    if not found["verified"]:
        raise click.exceptions.Exit(Exit.FAILED)


def _why(event: Json) -> str:
    facts = (event.get("facts") or {}).items()
    told = [f"{name}={_words(value)}" for name, value in facts if value not in (None, [])]
    return " ".join(part for part in (event.get("reason"), *told) if part)


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
