"""``tenantry keys …``: API keys, shown once and revoked at once; a new root key for all."""

import click

from control_plane.cli.commands import Group
from control_plane.cli.complete import key_ids, tenant_slugs
from control_plane.cli.options import (
    ROLE_WORDS,
    dry_run_option,
    limit_option,
    role_of,
    wait_option,
)
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, problem, say
from control_plane.cli.progress import conclude
from control_plane.cli.rehearsal import print_rehearsal
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table


@click.group(
    cls=Group,
    examples=(
        "tenantry keys create --role application --tenant acme --name acme-web",
        "tenantry keys create --role operator --role auditor --name on-call --days 7",
        "tenantry keys revoke ky_01k8z…",
        "tenantry keys rekey --wait",
    ),
)
def keys() -> None:
    """Create, list and revoke API keys; put everything under a new root key."""


@keys.command(
    "create",
    examples=(
        'export TENANTRY_TOKEN="$(tenantry keys create --role auditor --name nightly-report)"',
    ),
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(ROLE_WORDS),
    help="Repeatable.",
)
@click.option("--tenant", shell_complete=tenant_slugs, help="Bind the key to this tenant.")
@click.option("--name", help="What the audit log will call it; the roles when left out.")
@click.option(
    "--days",
    type=click.IntRange(1, 366),
    help="How long it lives. Default: 90; a breakglass key lives 8 hours.",
)
@pass_session
def create(
    session: Session, roles: tuple[str, ...], tenant: str | None, name: str | None, days: int | None
) -> None:
    """Make a key and print it. It is shown this once."""
    meant = list(dict.fromkeys(role_of(word) for word in roles))
    wanted: Json = {"name": name or "-".join([*meant, *([tenant] if tenant else [])])}
    wanted["roles"] = meant
    wanted.update({k: v for k, v in (("tenant", tenant), ("days", days)) if v is not None})
    made = session.api.change("POST", path("keys"), wanted)
    if made["token"] is None:
        raise problem(Exit.FAILED, "token_lost", f"{made['id']}: {made['note']}")
    if session.json:
        print_json(made)
        return
    click.echo(made["token"])
    say(f"{made['id']} ends {when(session, made['expires_at'])}; it is not shown again")


@keys.command("list")
@limit_option(default=None)
@pass_session
def list_(session: Session, limit: int | None) -> None:
    """List keys, newest first; the keys themselves are not kept."""
    columns = (
        Column("ID", lambda k: k["id"]),
        Column("NAME", lambda k: k["name"]),
        Column("ROLES", lambda k: ", ".join(k["roles"])),
        Column("TENANT", lambda k: k.get("tenant")),
        Column("STATE", _state, words=True),
        Column("ENDS", lambda k: when(session, k["expires_at"])),
        Column("LAST USED", lambda k: when(session, k.get("last_used_at"))),
    )
    print_table(session, session.api.items(path("keys"), most=limit), columns, "no keys")


@keys.command("revoke")
@click.argument("key", metavar="ID", shell_complete=key_ids)
@pass_session
def revoke(session: Session, key: str) -> None:
    """End a key now; its next call is refused."""
    answer = session.api.change("DELETE", path("keys", key))
    if session.json:
        print_json(answer)
    else:
        print_line(f"{key} is revoked")


@keys.command("rekey")
@dry_run_option
@wait_option
@pass_session
def rekey(session: Session, *, dry_run: bool, wait: bool) -> None:
    """Put every tenant key and every sealed secret under the root key of today.

    Afterwards nothing needs an older one; tenantry admin keys retire-epoch destroys it.
    """
    query = {"dry_run": "true"} if dry_run else None
    answer = session.api.change("POST", path("keys", "rekeys"), query=query)
    if dry_run:
        print_rehearsal(session, answer)
    else:
        conclude(session, answer, wait=wait)


def _state(key: Json) -> str:
    if key.get("revoked_at"):
        return "revoked"
    return "expired" if key.get("expired") else "active"
