"""``tenantry migrate``: one tenant brought to a revision of its template."""

import click

from control_plane.cli.commands import Command
from control_plane.cli.migration_plan import print_migration_plan
from control_plane.cli.options import dry_run_option, wait_option
from control_plane.cli.paths import path
from control_plane.cli.progress import conclude
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tenants import slug_argument


@click.command(
    "migrate",
    cls=Command,
    examples=(
        "tenantry migrate acme --wait",
        "tenantry migrate acme --to 0005 --dry-run",
    ),
)
@slug_argument
@click.option("--to", "revision", help="A revision. Default: the newest of the tenant's template.")
@dry_run_option
@wait_option
@pass_session
def migrate(
    session: Session, *, slug: str, revision: str | None, dry_run: bool, wait: bool
) -> None:
    """Bring one tenant's database to a revision of its template.

    A restore point is recorded first; every revision is a transaction of its own.
    """
    body = {"revision": revision} if revision else {}
    query = {"dry_run": "true"} if dry_run else None
    answer = session.api.change("POST", path("tenants", slug, "migrations"), body, query)
    if dry_run:
        print_migration_plan(session, answer)
    else:
        conclude(session, answer, wait=wait)
