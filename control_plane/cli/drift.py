"""``tenantry drift``: which databases are not what their template makes, and in what."""

from collections import deque

import click

from control_plane.cli.commands import Command
from control_plane.cli.complete import tenant_slugs
from control_plane.cli.following import follow
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, one_line, problem, say
from control_plane.cli.progress import watch
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table

_SHOWN_DIGITS = 12


@click.command(
    "drift",
    cls=Command,
    examples=("tenantry drift", "tenantry drift acme", "tenantry drift --cached --json"),
)
@click.argument("tenant", required=False, metavar="[TENANT]", shell_complete=tenant_slugs)
@click.option("--cached", is_flag=True, help="Show what was read last; read nothing again.")
@pass_session
def drift(session: Session, tenant: str | None, *, cached: bool) -> None:
    """Compare the schemas of the databases with the golden schema of their revision.

    Without TENANT, the fleet in groups of one schema; with TENANT, its difference as DDL. Exit 0
    when nothing differs, 1 when something does.
    """
    if not cached:
        _survey(session, tenant)
    found = session.api.get(path("tenants", tenant, "drift") if tenant else path("drift"))
    drifted = _tell_tenant(session, found) if tenant else _tell_fleet(session, found)
    if drifted:
        raise click.exceptions.Exit(Exit.FAILED)


def _survey(session: Session, tenant: str | None) -> None:
    """Have the schemas read, and wait for that; with --json without a word."""
    body = {"tenants": [tenant]} if tenant else {}
    operation = session.api.change("POST", path("drift", "surveys"), body)
    if not session.json:
        watch(session, operation)
        return
    operation = deque(follow(session.api, operation["id"]), maxlen=1).pop()
    if operation["state"] != "succeeded":
        error = operation.get("error") or {}
        raise problem(
            Exit.FAILED, "survey_failed", f"survey {operation['id']}: {error.get('message')}"
        )


def _tell_fleet(session: Session, report: Json) -> bool:
    groups = report["groups"]
    if session.json:
        print_json(report)
    else:
        columns = (
            Column("TEMPLATE", lambda g: g["template"]),
            Column("REVISION", lambda g: g["revision"]),
            Column("POSTGRES", lambda g: str(g["postgres_major"])),
            Column("TENANTS", lambda g: str(g["tenants"]), right=True),
            Column("SCHEMA", _verdict, words=True),
            Column("FINGERPRINT", lambda g: (g["fingerprint"] or "")[:_SHOWN_DIGITS]),
            Column("READ", lambda g: when(session, g["oldest_reading"])),
            Column("SOME OF THEM", lambda g: ", ".join(g["sample"])),
        )
        print_table(session, groups, columns, "no tenants")
    drifted = [group for group in groups if group["matches"] is False]
    unknown = sum(group["tenants"] for group in groups if group["matches"] is None)
    if unknown:
        say(f"{unknown} tenants cannot be judged: never read, not reachable, or no golden schema")
    for group in drifted if not session.json else ():
        say(f"see what differs with: tenantry drift {one_line(group['sample'][0])} --cached")
    return bool(drifted)


def _tell_tenant(session: Session, report: Json) -> bool:
    if session.json:
        print_json(report)
    elif report["matches"]:
        print_line(f"clean: {report['tenant']} is what revision {report['revision']} makes")
    elif report["matches"] is None:
        say(f"{report['tenant']} cannot be judged: it was not read, or has no golden schema")
    else:
        for entry in report["ddl"]:
            click.echo("\n".join(_plain(line) for line in entry.splitlines()) + "\n")
        differences = len(report["changes"])
        print_line(
            f"{report['tenant']} differs from revision {report['revision']} in {differences} "
            f"object{'s' * (differences > 1)}"
        )
    return report["matches"] is False


def _plain(line: str) -> str:
    """The line as it is indented; nothing from a tenant's database may move the cursor."""
    return " " * (len(line) - len(line.lstrip(" "))) + one_line(line)


def _verdict(group: Json) -> str:
    if group["matches"] is None:
        return "unknown"
    return "ok" if group["matches"] else "differs"
