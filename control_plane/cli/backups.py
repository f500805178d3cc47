"""``tenantry backup``, ``backups …`` and ``drills``: make backups, prove them, look at them."""

from collections.abc import Sequence

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import Command, Group
from control_plane.cli.complete import backup_ids, tenant_slugs
from control_plane.cli.durations import between, brief, exact
from control_plane.cli.options import dry_run_option, limit_option, wait_option
from control_plane.cli.output import print_json, size, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json, one_line, say
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table
from control_plane.cli.tenants import slug_argument

_LATEST = 50
_HASH_DIGITS = 12

backup_argument = click.argument("backup", metavar="BK", shell_complete=backup_ids)


@click.command(
    "backup", cls=Command, examples=("tenantry backup acme --wait", "tenantry backup acme --json")
)
@slug_argument
@dry_run_option
@wait_option
@pass_session
def backup(session: Session, *, slug: str, dry_run: bool, wait: bool) -> None:
    """Back a tenant up now: encrypted, and read back from the store.

    The backup holds the data of the moment it began; what is written later is in the next one.
    """
    ask(session, "POST", path("tenants", slug, "backups"), dry_run=dry_run, wait=wait)


@click.group(
    cls=Group,
    examples=(
        "tenantry backups list",
        "tenantry backups list acme",
        "tenantry backups verify bk_01k8z… --wait",
    ),
)
def backups() -> None:
    """List, show and verify backups; see which tenants are past their RPO."""


@backups.command("list", examples=("tenantry backups list", "tenantry backups list acme --utc"))
@click.argument("slug", required=False, shell_complete=tenant_slugs)
@limit_option(default=None)
@pass_session
def list_(session: Session, *, slug: str | None, limit: int | None) -> None:
    """List a tenant's backups; without SLUG, how well each tenant is protected.

    Without SLUG, tenants whose newest backup is older than their RPO come first.
    """
    if slug is None:
        _list_tenants(session, limit)
    else:
        found = session.api.items(path("tenants", slug, "backups"), most=limit)
        empty = f"no backups; make one with: tenantry backup {slug}"
        print_table(session, found, _backup_columns(session), empty)


@backups.command("show")
@backup_argument
@pass_session
def show(session: Session, backup: str) -> None:
    """Show one backup, and each drill that restored it."""
    found = session.api.get(path("backups", backup))
    if session.json:
        print_json(found)
        return
    print_facts(session, found, _facts(session, found))
    if found["drills"]:
        click.echo()
        print_table(session, found["drills"], _drill_columns(session), "")
    elif found["state"] == "complete":
        say(f"never restored; prove it with: tenantry backups verify {one_line(found['id'])}")


@backups.command("verify")
@backup_argument
@dry_run_option
@wait_option
@pass_session
def verify(session: Session, *, backup: str, dry_run: bool, wait: bool) -> None:
    """Prove a backup: restore it into a database of its own, and compare.

    The result is a line in the ledger, which drills shows.
    """
    ask(session, "POST", path("backups", backup, "verifications"), dry_run=dry_run, wait=wait)


@click.command(
    "drills", cls=Command, examples=("tenantry drills", "tenantry drills --tenant acme --limit 5")
)
@click.option("--tenant", shell_complete=tenant_slugs, help="Only of this tenant.")
@limit_option(default=_LATEST)
@pass_session
def drills(session: Session, *, tenant: str | None, limit: int) -> None:
    """List every restore that was compared, newest first: how long it took, what it found."""
    found = session.api.items(path("drills"), {"tenant": tenant}, most=limit)
    columns = (
        Column("TENANT", lambda d: d["tenant"]),
        *_drill_columns(session),
        Column("BACKUP", lambda d: d["backup"]),
    )
    empty = "no backup was restored yet; prove one with: tenantry backups verify BK"
    print_table(session, found, columns, empty)


def _list_tenants(session: Session, limit: int | None) -> None:
    """Every tenant is fetched before the list is cut: the worst of all come first."""
    every = sorted(session.api.items(path("backup-status")), key=_worst_first)
    columns = (
        Column("TENANT", lambda s: s["tenant"]),
        Column("RPO", _rpo, words=True),
        Column("COULD LOSE", lambda s: _brief(s["rpo_seconds"]), right=True),
        Column("AT MOST", lambda s: brief(s["rpo_minutes"] * 60), right=True),
        Column("RESTORE", _proof, words=True),
        Column("PROVEN", lambda s: when(session, s["verified_at"])),
        Column("EVERY", lambda s: f"{s['drill_days']} d", right=True),
        Column("RTO", lambda s: _exact(s["rto_seconds"]), right=True),
        Column("PROBLEM", lambda s: s["problem"]),
        Column("BACKUP", lambda s: f"running {s['running']}" if s["running"] else s["backup"]),
    )
    empty = "no tenants; make one with: tenantry tenants create SLUG"
    print_table(session, every[:limit], columns, empty, alarm=lambda s: s["rpo_breached"])
    breached = [status["tenant"] for status in every if status["rpo_breached"]]
    if breached and not session.json:
        say(f"{len(breached)} of {len(every)} tenants could lose more than their policy allows;")
        say(f"back one up with: tenantry backup {one_line(breached[0])}")


def _worst_first(status: Json) -> tuple[bool, bool, float, str]:
    late = (status["rpo_seconds"] or 0.0) / (status["rpo_minutes"] * 60)
    breached = status["rpo_breached"]
    return not breached, not status["drill_overdue"], -late if breached else 0.0, status["tenant"]


def _rpo(status: Json) -> str | None:
    if status["rpo_seconds"] is None:
        return None
    return "breached" if status["rpo_breached"] else "ok"


def _proof(status: Json) -> str | None:
    if status["drill_overdue"]:
        return "overdue"
    return "ok" if status["verified_at"] else None


def _backup_columns(session: Session) -> Sequence[Column]:
    return (
        Column("ID", lambda b: b["id"]),
        Column("STATE", lambda b: b["state"], words=True),
        Column("DATA OF", lambda b: when(session, b["snapshot_at"])),
        Column("PROVEN", lambda b: when(session, b["verified_at"])),
        Column("PROBLEM", lambda b: b["problem"]),
        Column("STORED", lambda b: size(b["stored_bytes"]), right=True),
        Column("DUMP", lambda b: size(b["plain_bytes"]), right=True),
        Column("ROWS", lambda b: _number(b["rows"]), right=True),
        Column("TOOK", lambda b: _exact(between(b["created_at"], b["finished_at"])), right=True),
        Column("WHY", lambda b: b["cause"]),
        Column("SERVER", lambda b: b["server"]),
    )


def _drill_columns(session: Session) -> Sequence[Column]:
    return (
        Column("RESULT", lambda d: d["state"], words=True),
        Column("WHEN", lambda d: when(session, d["finished_at"])),
        Column("RTO", lambda d: _exact(d["rto_seconds"]), right=True),
        Column("PROBLEM", lambda d: d["problem"]),
        Column("DOWNLOAD", lambda d: _exact(d["download_seconds"]), right=True),
        Column("LOAD", lambda d: _exact(d["load_seconds"]), right=True),
        Column("COMPARE", lambda d: _exact(d["compare_seconds"]), right=True),
        Column("ROWS", lambda d: _number(d["rows"]), right=True),
        Column("CONTENT", lambda d: (d["content_hash"] or "")[:_HASH_DIGITS]),
        Column("WHY", lambda d: d["cause"]),
        Column("SERVER", lambda d: f"{d['server']} ({d['postgres_major']})"),
    )


def _facts(session: Session, found: Json) -> Sequence[tuple[str, str | None]]:
    stored, plain = size(found["stored_bytes"]), size(found["plain_bytes"])
    schema = (found["template"], found["schema_revision"])
    major = found["postgres_major"]
    return (
        ("id", found["id"]),
        ("tenant", found["tenant"]),
        ("state", found["state"]),
        ("problem", found["problem"]),
        ("data of", when(session, found["snapshot_at"])),
        ("proven", when(session, found["verified_at"])),
        ("size", f"{stored} stored, {plain} as a dump" if stored else None),
        ("content", f"{found['rows']} rows of {found['tables']} tables" if stored else None),
        ("schema", " ".join(schema) if all(schema) else None),
        ("server", found["server"] + (f", Postgres {major}" if major else "")),
        ("made for", found["cause"]),
        ("slot", when(session, found["slot_at"])),
        ("begun", when(session, found["created_at"])),
        ("took", _exact(between(found["created_at"], found["finished_at"]))),
        ("kept", "always: an archived tenant consists of it" if found["pinned"] else None),
        ("key version", _number(found["key_version"])),
        ("object", found["object_key"]),
        ("manifest", found["manifest_key"]),
        ("sha256", found["sha256"]),
        ("operation", found["operation"]),
    )


def _exact(seconds: float | None) -> str | None:
    return None if seconds is None else exact(seconds)


def _brief(seconds: float | None) -> str | None:
    return None if seconds is None else brief(max(seconds, 0.0))


def _number(number: int | None) -> str | None:
    return None if number is None else str(number)
