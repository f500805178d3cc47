"""``tenantry servers create`` and ``delete``: servers that are made to order."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from control_plane.cli.asking import ask
from control_plane.cli.commands import Command
from control_plane.cli.complete import provided_names
from control_plane.cli.options import dry_run_option, labels_option, wait_option
from control_plane.cli.output import when
from control_plane.cli.paths import path
from control_plane.cli.problems import Json
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table
from control_plane.domain.providers import PROVIDERS
from control_plane.domain.tenants import TIERS

F = TypeVar("F", bound=Callable[..., Any])

_MACHINE = (
    click.option("--region", help="Where; also for placement."),
    click.option("--class", "instance_class", help="The machine, e.g. db.m7g.large."),
    click.option("--storage-gb", type=click.IntRange(1, 65536)),
    click.option("--version", type=click.IntRange(15, 18), help="The major version of Postgres."),
)


def machine_options(command: F) -> F:
    """What describes a server to its provider."""
    for option in reversed(_MACHINE):
        command = option(command)
    return command


def machine(**given: object) -> Json:
    """The fields of the options that were given."""
    return {field: value for field, value in given.items() if value}


@click.command(
    "create",
    cls=Command,
    examples=(
        "tenantry servers create pg-c --provider local --wait",
        "tenantry servers create pg-d --provider local --version 18 --tier dedicated --dry-run",
    ),
)
@click.argument("name")
@click.option("--provider", type=click.Choice(PROVIDERS), required=True, help="Who makes it.")
@machine_options
@click.option("--tier", type=click.Choice(TIERS), help="Only this tier. Default: all shared ones.")
@click.option("--capacity", type=click.IntRange(min=1), help="Most tenants. Default: 500.")
@labels_option
@dry_run_option
@wait_option
@pass_session
def create(
    session: Session, /, *, name: str, provider: str, dry_run: bool, wait: bool, **given: object
) -> None:
    """Have a Postgres server made, and enrol it."""
    body: Json = {"name": name, "provider": provider, **machine(**given)}
    ask(session, "POST", path("provided-servers"), body, dry_run=dry_run, wait=wait)


@click.command("provided", cls=Command)
@pass_session
def provided(session: Session) -> None:
    """List the servers that a provider made, or is making or deleting."""
    columns = (
        Column("NAME", lambda s: s["name"]),
        Column("PROVIDER", lambda s: s["provider"]),
        Column("STATE", lambda s: s["state"], words=True),
        Column("VERSION", lambda s: str(s.get("version") or "")),
        Column("CLASS", lambda s: s.get("instance_class") or ""),
        Column("STORAGE", lambda s: f"{s['storage_gb']} GB" if s.get("storage_gb") else ""),
        Column("CREATED", lambda s: when(session, s["created_at"])),
    )
    print_table(
        session,
        session.api.items(path("provided-servers")),
        columns,
        "no provider made a server; have one made with: tenantry servers create NAME --provider …",
    )


@click.command("delete", cls=Command, examples=("tenantry servers delete pg-c --wait",))
@click.argument("name", shell_complete=provided_names)
@click.option(
    "--lost", is_flag=True, help="It will never answer again: do not ask it what it still has."
)
@dry_run_option
@wait_option
@pass_session
def delete(session: Session, *, name: str, lost: bool, dry_run: bool, wait: bool) -> None:
    """Delete a server without tenants that was made by a provider, with all that is on it."""
    query = {"lost": "true"} if lost else None
    ask(session, "DELETE", path("provided-servers", name), query=query, dry_run=dry_run, wait=wait)
