"""``tenantry tenants archive … certificate``: putting tenants away, and ending them."""

import base64
import sys

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import Command
from control_plane.cli.complete import backups_of_tenant, server_names, tenant_slugs
from control_plane.cli.durations import Duration
from control_plane.cli.options import dry_run_option, wait_option
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, say, usage
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table

_slug = click.argument("slug", shell_complete=tenant_slugs)


@click.command("archive", cls=Command, examples=("tenantry tenants archive acme --wait",))
@_slug
@dry_run_option
@wait_option
@pass_session
def archive(session: Session, slug: str, *, dry_run: bool, wait: bool) -> None:
    """Keep a tenant as a proven backup only.

    It is cut off, backed up, the backup is restored and compared, then its database is dropped.
    Until then nothing is gone, and a tenant that was open is let in again if it fails.
    """
    ask(session, "POST", path("tenants", slug, "archives"), dry_run=dry_run, wait=wait)


@click.command(
    "unarchive",
    cls=Command,
    examples=(
        "tenantry tenants unarchive acme --wait",
        "tenantry tenants unarchive acme --server pg-b",
    ),
)
@_slug
@click.option("--server", shell_complete=server_names, help="This server and no other.")
@click.option("--region", help="Only servers of this region.")
@click.option(
    "--from",
    "backup",
    metavar="BK",
    shell_complete=backups_of_tenant,
    help="Another backup than its archive, when that is damaged.",
)
@dry_run_option
@wait_option
@pass_session
def unarchive(  # noqa: PLR0913 - one parameter per option
    session: Session,
    *,
    slug: str,
    server: str | None,
    region: str | None,
    backup: str | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Restore an archived tenant; its DSN is the one it had."""
    query = {"server": server, "region": region, "backup_id": backup}
    target = path("tenants", slug, "archives")
    ask(session, "DELETE", target, query=query, dry_run=dry_run, wait=wait)


@click.command(
    "delete",
    cls=Command,
    examples=(
        "tenantry tenants delete acme --confirm acme --wait",
        "tenantry tenants delete acme --grace 7d --keep-backups 90",
        "tenantry tenants delete acme --keep-backups 0 --no-final-backup --dry-run",
    ),
)
@_slug
@click.option("--confirm", metavar="SLUG", help="The slug once more; asked for when left out.")
@click.option("--grace", type=Duration(), help="How long undelete brings it back, e.g. 30d.")
@click.option(
    "--keep-backups",
    type=click.IntRange(min=0),
    metavar="DAYS",
    help="How long backups and keys are kept after the grace. Default: 30.",
)
@click.option(
    "--final-backup/--no-final-backup",
    default=None,
    help="One more backup when the grace is over. Default: if backups are kept at all.",
)
@dry_run_option
@wait_option
@pass_session
def delete(  # noqa: PLR0913 - one parameter per option
    session: Session,
    *,
    slug: str,
    confirm: str | None,
    grace: int | None,
    keep_backups: int | None,
    final_backup: bool | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Cut a tenant off now; drop its databases after a grace, its backups and keys later.

    Until the grace is over, tenantry tenants undelete brings it back with the same DSN.
    """
    query = {
        "confirm": confirm or (slug if dry_run else _confirmed(session, slug)),
        "grace_seconds": grace,
        "keep_backups_days": keep_backups,
        "final_backup": None if final_backup is None else str(final_backup).lower(),
    }
    ask(session, "DELETE", path("tenants", slug), query=query, dry_run=dry_run, wait=wait)


@click.command("undelete", cls=Command)
@_slug
@dry_run_option
@wait_option
@pass_session
def undelete(session: Session, slug: str, *, dry_run: bool, wait: bool) -> None:
    """Bring a tenant back as it was before its deletion, as long as its grace lasts."""
    ask(session, "POST", path("tenants", slug, "undelete"), dry_run=dry_run, wait=wait)


@click.command("hold", cls=Command, examples=('tenantry tenants hold acme --reason "case 12-345"',))
@_slug
@click.option("--reason", required=True, help="Why nothing of it may be destroyed.")
@pass_session
def hold(session: Session, slug: str, reason: str) -> None:
    """Put a tenant under legal hold: from now on nothing of it is destroyed."""
    target = path("tenants", slug, "legal-hold")
    _tell(session, session.api.change("PUT", target, {"reason": reason}), "is under legal hold")


@click.command("release", cls=Command)
@_slug
@click.option("--reason", help="Why the hold ends.")
@pass_session
def release(session: Session, slug: str, reason: str | None) -> None:
    """End a legal hold; a deletion that waited for it goes on."""
    target = path("tenants", slug, "legal-hold")
    free = session.api.change("DELETE", target, query={"reason": reason})
    _tell(session, free, "is under no legal hold")


@click.command(
    "certificate",
    cls=Command,
    examples=("tenantry tenants certificate acme", "tenantry tenants certificate acme --json"),
)
@_slug
@pass_session
def certificate(session: Session, slug: str) -> None:
    """Show the certificate of a tenant that was destroyed, and check its signature.

    Exit code 1: the signature is not right.
    """
    found = session.api.get(path("tenants", slug, "certificate"))
    good = _is_signed(found)
    if session.json:
        print_json(found)
    else:
        _print_certificate(session, found, good=good)
    if not good:
        say("error: the signature is not that of this document")
        raise click.exceptions.Exit(Exit.FAILED)


COMMANDS = (archive, unarchive, delete, undelete, hold, release, certificate)


def _confirmed(session: Session, slug: str) -> str:
    if session.json or not sys.stdin.isatty():
        raise usage(f"say that it is meant: --confirm {slug}")
    typed: str = click.prompt(f"{slug} is cut off at once. Type its slug to go on", err=True)
    return typed


def _tell(session: Session, tenant: Json, words: str) -> None:
    if session.json:
        print_json(tenant)
    else:
        print_line(f"{tenant['slug']} {words}")


def _is_signed(found: Json) -> bool:
    from control_plane.adapters import signatures  # noqa: PLC0415 - cryptography is slow to import

    return signatures.verifies(
        signatures.canonical(found["document"]),
        base64.b64decode(found["signature"]),
        base64.b64decode(found["public_key"]),
    )


def _print_certificate(session: Session, found: Json, *, good: bool) -> None:
    document = found["document"]
    counts = ", ".join(f"{number} {what}" for what, number in document["counts"].items())
    facts = (
        ("certificate", found["id"]),
        ("tenant", f"{document['tenant']['slug']} ({found['tenant']})"),
        ("name", document["tenant"]["name"]),
        ("asked for by", document["requested"]["by"]),
        ("issued", when(session, found["issued_at"])),
        ("effective", when(session, document["effective_at"])),
        ("destroyed", counts.replace("_", " ")),
        ("signature", "right" if good else "WRONG"),
        ("signing key", found["key_fingerprint"]),
    )
    print_facts(session, found, facts)
    columns = (
        Column("NOT REACHED", lambda one: one["what"]),
        Column("IN THE FORM OF", lambda one: one["form"]),
        Column("UNTIL", lambda one: when(session, one["until"]) or "unknown"),
    )
    print_line("")
    print_table(session, document["not_reached"], columns, "")
