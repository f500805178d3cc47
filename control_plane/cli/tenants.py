"""``tenantry tenants …`` and ``rotate``: asking for changes to a tenant, and looking."""

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import Command, Group
from control_plane.cli.complete import server_names, tenant_slugs
from control_plane.cli.durations import Duration
from control_plane.cli.endings import COMMANDS
from control_plane.cli.limits import limit
from control_plane.cli.options import dry_run_option, labels_option, limit_option, wait_option
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table
from control_plane.domain.tenants import TIERS

_STATES = ("provisioning", "active", "suspended", "archived", "deleting", "deleted")

slug_argument = click.argument("slug", shell_complete=tenant_slugs)


@click.group(
    cls=Group,
    examples=(
        'tenantry tenants create acme --name "Acme Clinic" --tier enterprise --wait',
        "tenantry tenants list --tier standard",
        "tenantry tenants suspend acme --wait",
        "tenantry tenants archive acme --wait",
    ),
)
def tenants() -> None:
    """Create, list, show, suspend, archive and delete tenants."""


for _command in (*COMMANDS, limit):
    tenants.add_command(_command)


@tenants.command(
    "create",
    examples=(
        'tenantry tenants create acme --name "Acme Clinic" --wait',
        "tenantry tenants create acme --server pg-b --label team=north",
        "tenantry tenants create acme --tier dedicated --dry-run",
    ),
)
@click.argument("slug")
@click.option("--name", help="The name for people; the slug when left out.")
@click.option("--tier", type=click.Choice(TIERS), help="Default: standard.")
@click.option("--region", help="Only servers of this region.")
@click.option("--server", shell_complete=server_names, help="This server and no other.")
@click.option("--template", help="The class of tenants whose schema it gets. Default: clinic.")
@labels_option
@dry_run_option
@wait_option
@pass_session
def create(  # noqa: PLR0913 - one parameter per option
    session: Session,
    *,
    slug: str,
    name: str | None,
    tier: str | None,
    region: str | None,
    server: str | None,
    template: str | None,
    labels: dict[str, str],
    dry_run: bool,
    wait: bool,
) -> None:
    """Give a new tenant its database, its logins and its route.

    A slug has 3 to 40 lower-case letters, digits and hyphens, and begins with a letter.
    """
    wanted: Json = {"slug": slug, "name": name or slug}
    optional = {
        "tier": tier,
        "region": region,
        "server": server,
        "template": template,
        "labels": labels,
    }
    wanted.update({field: value for field, value in optional.items() if value})
    ask(session, "POST", "/v1/tenants", wanted, dry_run=dry_run, wait=wait)


@tenants.command("list")
@click.option("--tier", type=click.Choice(TIERS))
@click.option("--state", type=click.Choice(_STATES))
@click.option("--server", shell_complete=server_names)
@limit_option(default=None)
@pass_session
def list_(
    session: Session, tier: str | None, state: str | None, server: str | None, limit: int | None
) -> None:
    """List tenants, oldest first; deleted ones only with --state deleted."""
    query = {"tier": tier, "state": state, "server": server}
    columns = (
        Column("SLUG", lambda t: t["slug"]),
        Column("NAME", lambda t: t["name"]),
        Column("TIER", lambda t: t["tier"]),
        Column("STATE", _state, words=True),
        Column("SERVER", lambda t: t.get("server")),
        Column("TEMPLATE", lambda t: t.get("template")),
        Column("REGION", lambda t: t.get("region")),
        Column("CREATED", lambda t: when(session, t["created_at"])),
    )
    found = session.api.items("/v1/tenants", query, most=limit)
    print_table(session, found, columns, "no tenants; make one with: tenantry tenants create SLUG")


@tenants.command("show")
@slug_argument
@pass_session
def show(session: Session, slug: str) -> None:
    """Show one tenant, by slug or tn_ id."""
    tenant = session.api.get(path("tenants", slug))
    operation = tenant.get("operation") or {}
    facts = (
        ("slug", tenant["slug"]),
        ("name", tenant["name"]),
        ("id", tenant["id"]),
        ("state", tenant["state"]),
        ("in progress", f"{operation['kind']} {operation['id']}" if operation else None),
        ("tier", tenant["tier"]),
        ("region", tenant.get("region")),
        ("server", tenant.get("server")),
        ("placement", tenant.get("placement_reason")),
        ("cell", tenant.get("cell")),
        ("template", tenant.get("template")),
        ("schema", tenant.get("schema_revision")),
        ("labels", ", ".join(f"{k}={v}" for k, v in (tenant.get("labels") or {}).items())),
        ("created", when(session, tenant["created_at"])),
        ("activated", when(session, tenant.get("activated_at"))),
        ("legal hold", "nothing of it may be destroyed" if tenant.get("legal_hold") else None),
        ("databases go", when(session, tenant.get("delete_after"))),
        ("backups go", when(session, tenant.get("shred_after"))),
    )
    print_facts(session, tenant, facts)


@tenants.command("suspend")
@slug_argument
@dry_run_option
@wait_option
@pass_session
def suspend(session: Session, slug: str, *, dry_run: bool, wait: bool) -> None:
    """Cut a tenant off at once and keep its data."""
    ask(session, "POST", path("tenants", slug, "suspensions"), dry_run=dry_run, wait=wait)


@tenants.command("resume")
@slug_argument
@dry_run_option
@wait_option
@pass_session
def resume(session: Session, slug: str, *, dry_run: bool, wait: bool) -> None:
    """Let a suspended tenant in again, with the credentials it had."""
    ask(session, "DELETE", path("tenants", slug, "suspensions"), dry_run=dry_run, wait=wait)


@tenants.command("rotate-key")
@slug_argument
@pass_session
def rotate_key(session: Session, slug: str) -> None:
    """Encrypt a tenant's backups and fields under a new key from now on.

    The keys until now are kept and open what they encrypted.
    """
    done = session.api.change("POST", path("tenants", slug, "key-rotations"))
    if session.json:
        print_json(done)
    else:
        print_line(f"{slug} encrypts under version {done['version']} of its key now")


@click.command(
    "rotate",
    cls=Command,
    examples=("tenantry rotate acme --wait", "tenantry rotate acme --grace 15m"),
)
@slug_argument
@click.option(
    "--grace", type=Duration(), help="How long the old credentials keep working, e.g. 1h, 15m."
)
@dry_run_option
@wait_option
@pass_session
def rotate(
    session: Session,
    *,
    slug: str,
    grace: int | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Give a tenant new credentials; the old ones work until the grace ends."""
    body = {} if grace is None else {"grace_seconds": grace}
    ask(session, "POST", path("tenants", slug, "rotations"), body, dry_run=dry_run, wait=wait)


def _state(tenant: Json) -> str:
    operation = tenant.get("operation")
    state: str = tenant["state"]
    return f"{state} · {operation['kind']}" if operation else state
