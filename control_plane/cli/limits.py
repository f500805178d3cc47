"""``tenantry tenants limit``: a tenant's own limits in place of its tier's."""

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import Command
from control_plane.cli.complete import tenant_slugs
from control_plane.cli.durations import Duration
from control_plane.cli.options import dry_run_option, wait_option
from control_plane.cli.paths import path
from control_plane.cli.problems import Json, usage
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import print_facts

_MS = 1000
_COUNT = click.IntRange(min=1)


@click.command(
    "limit",
    cls=Command,
    examples=(
        "tenantry tenants limit acme --pool 2 --session-pool 2 --connections 15 --wait",
        "tenantry tenants limit acme --statement-timeout 10s --reason 'nightly report'",
        "tenantry tenants limit acme --reset --wait",
        "tenantry tenants limit acme",
    ),
)
@click.argument("slug", shell_complete=tenant_slugs)
@click.option("--pool", type=_COUNT, help="Connections of each pooler, pooled by transaction.")
@click.option("--session-pool", type=_COUNT, help="The same, pooled by session.")
@click.option("--connections", type=_COUNT, help="Connections to the server, of each login.")
@click.option("--statement-timeout", type=Duration(), help="E.g. 10s; 0 is no limit.")
@click.option("--idle-in-transaction", type=Duration(), help="E.g. 30s; 0 is no limit.")
@click.option("--reason", help="For the audit log, and whoever looks at the tenant later.")
@click.option("--reset", is_flag=True, help="The limits of its tier again.")
@dry_run_option
@wait_option
@pass_session
def limit(  # noqa: PLR0913 - one parameter per option
    session: Session,
    *,
    slug: str,
    pool: int | None,
    session_pool: int | None,
    connections: int | None,
    statement_timeout: int | None,
    idle_in_transaction: int | None,
    reason: str | None,
    reset: bool,
    dry_run: bool,
    wait: bool,
) -> None:
    """Give a tenant limits of its own, or show those in force; no client is cut off.

    What is not given is the tier's. Timeouts hold for connections made from then on; poolers renew
    theirs within an hour, or at once when a pool shrinks below those that are open.
    """
    given: Json = {
        "pool_size": pool,
        "session_pool_size": session_pool,
        "connections": connections,
        "statement_timeout_ms": _milliseconds(statement_timeout),
        "idle_in_transaction_ms": _milliseconds(idle_in_transaction),
    }
    body = {name: value for name, value in given.items() if value is not None}
    target = path("tenants", slug, "limits")
    if reset and body:
        raise usage("--reset takes every limit of its own back; give no other with it")
    if not reset and not body:
        _show(session, session.api.get(target))
        return
    if reset:
        ask(session, "DELETE", target, dry_run=dry_run, wait=wait)
        return
    ask(
        session,
        "PUT",
        target,
        {**body, **({"reason": reason} if reason else {})},
        dry_run=dry_run,
        wait=wait,
    )


def _milliseconds(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * _MS


def _show(session: Session, found: Json) -> None:
    facts = [("tenant", found["tenant"]), ("tier", found["tier"])]
    for name, value in found["in_force"].items():
        own = f"{value:,}, its own; the tier has {found['of_tier'][name]:,}"
        facts.append((name.replace("_", " "), own if name in found["own"] else f"{value:,}"))
    print_facts(session, found, [*facts, ("reason", found["reason"])])
