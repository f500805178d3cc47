"""``tenantry move``: a tenant to another server, back again, the old database given up."""

from typing import Any

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import Group
from control_plane.cli.complete import server_names
from control_plane.cli.durations import seconds_of
from control_plane.cli.options import dry_run_option, wait_option
from control_plane.cli.output import when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json, usage
from control_plane.cli.providing import machine, machine_options
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table
from control_plane.cli.tenants import slug_argument
from control_plane.domain.providers import NEW_SERVER, PROVIDERS

_BEGIN = "begin"


class _Milliseconds(click.ParamType[int]):
    """An option that holds a short duration, as whole milliseconds."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click hands over the text or the default
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        text = str(value).strip()
        if text.endswith("ms") and text[:-2].strip().isdigit():
            return int(text[:-2])
        seconds = seconds_of(text)
        if seconds is None:
            self.fail(f"{value!r} is not a duration; write for example 2s or 500ms", param, ctx)
        return round(seconds * 1000)


class _MoveGroup(Group):
    """``move SLUG …`` begins a move; ``move reverse``, ``finish``, ``list`` are what they say."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = [_BEGIN, *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_MoveGroup,
    examples=(
        "tenantry move acme --to pg-b --wait",
        "tenantry move acme --to pg-b --pause-budget 500ms",
        "tenantry move acme --to new --provider local --wait",
        "tenantry move reverse acme --wait",
        "tenantry move finish acme",
    ),
)
def move() -> None:
    """Move a tenant to another server while its clients go on: tenantry move SLUG --to SERVER.

    From the switch on its changes flow back to the old server, until the move is reversed or
    finished.
    """


@move.command(_BEGIN, hidden=True)
@slug_argument
@click.option(
    "--to",
    "server",
    required=True,
    shell_complete=server_names,
    help=f"The new server; {NEW_SERVER!r} makes one for this tenant, with --provider.",
)
@click.option("--provider", type=click.Choice(PROVIDERS), help="Who makes the new server.")
@click.option("--name", help="The new server's name. Default: the tenant's slug.")
@machine_options
@click.option(
    "--pause-budget",
    type=_Milliseconds(),
    default=None,
    help="How long clients may wait at the switch, e.g. 2s; past it, it is tried again later.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="If it cannot be replicated, close the tenant while it is copied.",
)
@dry_run_option
@wait_option
@pass_session
def begin(  # noqa: PLR0913 - the options of the command
    session: Session,
    /,
    *,
    slug: str,
    server: str,
    pause_budget: int | None,
    offline: bool,
    dry_run: bool,
    wait: bool,
    provider: str | None,
    name: str | None,
    **given: object,
) -> None:
    """Move a tenant to another server."""
    body: Json = {"server": server}
    wished = machine(**given)
    if server == NEW_SERVER:
        if provider is None:
            raise usage(f"--to {NEW_SERVER} needs --provider: {', '.join(PROVIDERS)}")
        body["new_server"] = {"name": name or slug, "provider": provider, **wished}
    elif provider or name or wished:
        raise usage(f"--provider, --name and what describes a server go with --to {NEW_SERVER}")
    if pause_budget is not None:
        body["pause_budget_ms"] = pause_budget
    if offline:
        body["offline"] = True
    ask(session, "POST", path("tenants", slug, "moves"), body, dry_run=dry_run, wait=wait)


@move.command("reverse")
@slug_argument
@dry_run_option
@wait_option
@pass_session
def reverse(session: Session, slug: str, *, dry_run: bool, wait: bool) -> None:
    """Bring a tenant back to where it came from, with everything written since."""
    ask(session, "POST", path("tenants", slug, "moves", "reverse"), dry_run=dry_run, wait=wait)


@move.command("finish")
@slug_argument
@click.option(
    "--without-backup", is_flag=True, help="Although no backup of the new database is verified."
)
@dry_run_option
@wait_option
@pass_session
def finish(session: Session, slug: str, *, without_backup: bool, dry_run: bool, wait: bool) -> None:
    """Give the old database up: nothing flows back any more, and it is dropped."""
    body = {"without_backup": without_backup}
    target = path("tenants", slug, "moves", "finish")
    ask(session, "POST", target, body, dry_run=dry_run, wait=wait)


@move.command("list")
@slug_argument
@pass_session
def list_(session: Session, slug: str) -> None:
    """List a tenant's moves, newest first."""
    columns = (
        Column("MOVE", lambda m: m["id"]),
        Column("STATE", lambda m: m["state"], words=True),
        Column("FROM", lambda m: m["source"]),
        Column("TO", lambda m: m["target"]),
        Column("CLIENTS WAITED", _waited, right=True),
        Column("COMPARED", _compared),
        Column("BEGAN", lambda m: when(session, m["created_at"])),
    )
    found = session.api.get(path("tenants", slug, "moves"))["items"]
    print_table(session, found, columns, f"{slug} was never moved")


def _waited(found: Json) -> str:
    waited = found.get("paused_ms")
    return "" if waited is None else f"{waited:.0f} ms"


def _compared(found: Json) -> str:
    compared = found.get("compared_at_switch") or found.get("compared")
    if not compared:
        return ""
    different = "different" if compared["differences"] else "equal"
    return f"{compared['tables']} tables, {compared['rows']:,} rows {different}"
