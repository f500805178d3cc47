"""``tenantry restore …``: a tenant brought back in place, a new one made beside it, and undo."""

import datetime as dt
import sys
from collections.abc import Mapping

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import DefaultCommand, DefaultGroup
from control_plane.cli.complete import backups_of_tenant, server_names
from control_plane.cli.options import dry_run_option, wait_option
from control_plane.cli.output import when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, one_line, say
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tenants import slug_argument
from control_plane.domain.tenants import TIERS


@click.command(
    "restore",
    cls=DefaultCommand,
    examples=(
        "tenantry restore acme --in-place --wait",
        "tenantry restore acme --from bk_01k8z… --as acme-of-monday --wait",
        "tenantry restore acme --in-place --server pg-b --source-lost --yes",
        "tenantry restore undo acme --wait",
    ),
)
@slug_argument
@click.option(
    "--from",
    "backup",
    metavar="BK",
    shell_complete=backups_of_tenant,
    help="Default: the backup with the youngest data.",
)
@click.option("--in-place", is_flag=True, help="In the place of its database; the DSN stays.")
@click.option("--as", "new_slug", metavar="NEW_SLUG", help="As a new tenant beside it.")
@click.option("--name", help="The name of the new tenant, for people.")
@click.option("--tier", type=click.Choice(TIERS), help="Of the new tenant. Default: the same.")
@click.option("--region", help="Of the new tenant. Default: the same.")
@click.option("--server", shell_complete=server_names, help="On this server.")
@click.option(
    "--source-lost", is_flag=True, help="The tenant's own server is gone for good (needs --server)."
)
@click.option("--yes", is_flag=True, help="Do not ask before a restore in place.")
@dry_run_option
@wait_option
@pass_session
def restore_tenant(  # noqa: PLR0913 - one parameter per option
    session: Session,
    /,
    *,
    slug: str,
    backup: str | None,
    in_place: bool,
    new_slug: str | None,
    source_lost: bool,
    server: str | None,
    yes: bool,
    dry_run: bool,
    wait: bool,
    **of_the_new: str | None,
) -> None:
    """Restore a tenant from a backup: --in-place, or --as a new tenant beside it.

    Either way the backup is loaded into a database of its own first and compared; until that is
    proven, nothing of the tenant is touched. In place, the replaced database is kept for a while:
    restore undo goes back to it.
    """
    if in_place == bool(new_slug):
        raise click.UsageError(
            "choose one: --in-place (the tenant goes back to the backup) or --as NEW_SLUG (a new "
            "tenant is made of it)"
        )
    body: Json = {"backup_id": backup} if backup else {}
    if in_place:
        _refuse(of_the_new, "makes no sense with --in-place, which keeps the tenant as it is")
        if sys.stdin.isatty() and not (yes or dry_run):
            body |= _confirmed(session, slug, backup)
        body |= _given(target="in_place", server=server, source_lost=source_lost)
    else:
        _refuse({"source-lost": source_lost}, "makes no sense with --as, which leaves it alone")
        body["target"] = _given(slug=new_slug, server=server, **of_the_new)
    ask(session, "POST", path("tenants", slug, "restores"), body, dry_run=dry_run, wait=wait)


restore = DefaultGroup(restore_tenant)


@restore.command("undo", examples=("tenantry restore undo acme --wait",))
@slug_argument
@dry_run_option
@wait_option
@pass_session
def undo(session: Session, *, slug: str, dry_run: bool, wait: bool) -> None:
    """Go back to the database that the last restore in place has replaced.

    The present one is kept in turn: undoing twice leads back.
    """
    target = path("tenants", slug, "restores", "undo")
    ask(session, "POST", target, dry_run=dry_run, wait=wait)


def _given(**options: object) -> Json:
    return {field: value for field, value in options.items() if value}


def _refuse(options: Mapping[str, object], why: str) -> None:
    for name in _given(**options):
        raise click.UsageError(f"--{name} {why}")


def _confirmed(session: Session, slug: str, shown: str | None) -> Json:
    """Which backup it is, once the person has seen it and agreed.

    Raises:
        click.exceptions.Exit: with code 1, when they did not.
    """
    backup = session.api.get(path("backups", shown)) if shown else _youngest(session, slug)
    if backup is None or backup["snapshot_at"] is None:
        return {}  # The API has the better words for why it cannot be restored.
    taken = when(session, backup["snapshot_at"])
    say(f"{one_line(slug)} goes back to its data as of {taken} ({one_line(backup['id'])});")
    say("what was written since is then only in the replaced database, which is kept for a while")
    if not click.confirm(f"Restore {one_line(slug)} in place?", err=True):
        say("nothing was changed")
        raise click.exceptions.Exit(Exit.FAILED)
    return {"backup_id": backup["id"]}


def _youngest(session: Session, slug: str) -> Json | None:
    """The backup that is meant when none is named."""
    found = session.api.items(path("tenants", slug, "backups"))
    complete = (one for one in found if one["state"] == "complete")
    return max(complete, key=lambda b: dt.datetime.fromisoformat(b["snapshot_at"]), default=None)
