"""``tenantry servers …`` and ``poolers …``: the Postgres servers and the way to them."""

import time
from pathlib import Path

import click

from control_plane.cli.commands import Group
from control_plane.cli.complete import pooler_names, server_names
from control_plane.cli.following import follow
from control_plane.cli.options import labels_option, wait_option
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.passwords import ask_password
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, one_line, problem, say, usage
from control_plane.cli.progress import conclude
from control_plane.cli.providing import create, delete, provided
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_facts, print_table
from control_plane.domain.errors import Invalid
from control_plane.domain.tenants import TIERS

# Each round asks the API once more, which leaves a line in the audit log.
_ROUND_SECONDS = 1.0
_MOST_ROUNDS = 120

name_argument = click.argument("name", shell_complete=server_names)


@click.group(
    cls=Group,
    examples=(
        "tenantry servers add pg-c --host db3.internal --port 5432 --user tenantry_admin --wait",
        "tenantry servers drain pg-a",
        "tenantry servers list --json",
    ),
)
def servers() -> None:
    """Add, list, show, drain and remove Postgres servers; create and delete them."""


servers.add_command(create)
servers.add_command(delete)
servers.add_command(provided)


@servers.command(
    "add",
    examples=(
        "tenantry servers add pg-c --host db3.internal --user tenantry_admin --region eu --wait",
    ),
)
@click.argument("name")
@click.option("--host", required=True, help="A name or an address, nothing else.")
@click.option("--port", type=click.IntRange(1, 65535), default=5432, show_default=True)
@click.option("--user", required=True, help="The administrator that tenants are made with.")
@click.option("--region")
@click.option("--tier", type=click.Choice(TIERS), help="Only this tier. Default: all shared ones.")
@click.option("--capacity", type=click.IntRange(min=1), help="Most tenants. Default: 500.")
@click.option("--tls", type=click.Choice(("disable", "require", "verify-full")))
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM of the authority that signed the server's certificate.",
)
@labels_option
@wait_option
@pass_session
def add(  # noqa: PLR0913 - one parameter per option
    session: Session,
    *,
    name: str,
    host: str,
    port: int,
    user: str,
    region: str | None,
    tier: str | None,
    capacity: int | None,
    tls: str | None,
    ca_file: Path | None,
    labels: dict[str, str],
    wait: bool,
) -> None:
    """Enrol a Postgres server: it is examined, prepared and then takes tenants.

    The password is asked for, or read from TENANTRY_SERVER_PASSWORD.
    """
    wanted: Json = {"name": name, "host": host, "port": port, "user": user}
    optional = {
        "region": region,
        "tier": tier,
        "capacity": capacity,
        "tls": tls,
        "ca_pem": ca_file.read_text() if ca_file else None,
        "labels": labels,
    }
    wanted.update({field: value for field, value in optional.items() if value})
    wanted["password"] = ask_password(user, host)
    conclude(session, session.api.change("POST", path("servers"), wanted), wait=wait)


@servers.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the servers with their load and health."""
    columns = (
        Column("NAME", lambda s: s["name"]),
        Column("STATE", lambda s: s["state"], words=True),
        Column("HEALTH", _health, words=True),
        Column("PLACED", lambda s: f"{s['placed']}/{s['capacity']}", right=True),
        Column("READY", lambda s: str(s.get("pooled", "")), right=True),
        Column("TIER", lambda s: s.get("tier") or "shared"),
        Column("REGION", lambda s: s.get("region")),
        Column("VERSION", lambda s: str(s.get("version") or "")),
        Column("ADDRESS", lambda s: f"{s['host']}:{s['port']}"),
    )
    print_table(
        session,
        session.api.items(path("servers")),
        columns,
        "no servers; add one with: tenantry servers add NAME --host HOST --user USER",
    )


@servers.command("show")
@name_argument
@pass_session
def show(session: Session, name: str) -> None:
    """Show one server and what its examination found."""
    server = session.api.get(path("servers", name))
    facts = (
        ("name", server["name"]),
        ("id", server.get("id")),
        ("state", server["state"]),
        ("health", _health(server)),
        ("problem", server.get("problem")),
        ("checked", when(session, server.get("checked_at"))),
        ("address", f"{server['host']}:{server['port']}"),
        ("version", str(server.get("version") or "")),
        ("placed", f"{server['placed']} of {server['capacity']}"),
        ("ready", f"{server.get('pooled', 0)} databases in the pool"),
        ("tier", server.get("tier") or "shared"),
        ("region", server.get("region")),
        ("tls", server.get("tls")),
        ("labels", ", ".join(f"{k}={v}" for k, v in (server.get("labels") or {}).items())),
        ("added", when(session, server.get("created_at"))),
    )
    print_facts(session, server, facts)
    if not session.json:
        _print_findings(server.get("preflight") or [])


@servers.command("administrator-sql", examples=("tenantry servers administrator-sql tenantry",))
@click.argument("user")
@pass_session
def administrator_sql(session: Session, user: str) -> None:
    """Print what a superuser runs so that USER can enrol a server without being one.

    For Postgres 16 and newer. Nothing is asked or changed.
    """
    # Drivers are slow to import.
    from control_plane.adapters.administrator import administrator_script  # noqa: PLC0415

    try:
        script = administrator_script(user)
    except Invalid as error:
        raise usage(error.message) from error
    if session.json:
        print_json({"sql": script})
    else:
        click.echo(script, nl=False)


@servers.command("drain")
@name_argument
@click.option("--move", is_flag=True, help="Move its tenants to other servers, one by one.")
@click.option("--at-once", type=click.IntRange(1, 32), default=1, help="So many at one time.")
@pass_session
def drain(session: Session, name: str, *, move: bool, at_once: int) -> None:
    """Place no new tenants on a server; those it holds stay, or are moved away."""
    body = {"move": True, "moves_at_once": at_once} if move else None
    answer = session.api.change("POST", path("servers", name, "drain"), body)
    _tell(session, answer, f"{name} is draining{', its tenants move away' if move else ''}")


@servers.command("undrain")
@name_argument
@pass_session
def undrain(session: Session, name: str) -> None:
    """Let a drained server take tenants again."""
    answer = session.api.change("DELETE", path("servers", name, "drain"))
    _tell(session, answer, f"{name} takes tenants again")


@servers.command("remove")
@name_argument
@wait_option
@pass_session
def remove(session: Session, name: str, *, wait: bool) -> None:
    """Take a server without tenants out of the fleet.

    Databases that were made ahead are dropped first; with --wait, until that is over.
    """
    answer = _ask_to_remove(session, name)
    if answer and wait:
        answer = _until_removed(session, name, answer)
    if not answer:
        _tell(session, {"server": name, "removed": True}, f"{name} is removed")
        return
    _tell(session, answer, f"{name} is being emptied: {answer['waits_for']}")
    say(f"ask again later: tenantry servers remove {one_line(name)}")


def _ask_to_remove(session: Session, name: str) -> Json:
    """An empty answer when it is removed, else what has to end before asking again."""
    answer = session.api.change("DELETE", path("servers", name))
    return {} if answer.get("removed") else answer


def _until_removed(session: Session, name: str, answer: Json) -> Json:
    """Follow what empties the server and ask again, for as long as that gets on.

    Raises:
        Problem: it cannot be emptied.
    """
    for _ in range(_MOST_ROUNDS):
        for operation_id in answer["operations"]:
            *_, ended = follow(session.api, operation_id)
            if ended["state"] != "succeeded":
                raise problem(
                    Exit.FAILED,
                    "not_emptied",
                    f"{name} could not be emptied: {ended['kind']} {ended['id']} {ended['state']}",
                )
        time.sleep(_ROUND_SECONDS)
        answer = _ask_to_remove(session, name)
        if not answer:
            break
    return answer


@click.group(cls=Group)
def poolers() -> None:
    """The PgBouncer processes that tenants connect through."""


@poolers.command("list")
@pass_session
def list_poolers(session: Session) -> None:
    """List the poolers, and whether each serves what it should."""
    columns = (
        Column("NAME", lambda p: p["name"]),
        Column("HEALTH", _pooler_health, words=True),
        Column("CELL", lambda p: p.get("cell")),
        Column("ADDRESS", lambda p: f"{p['host']}:{p['port']}"),
        Column("VERSION", lambda p: p.get("version")),
        Column("ENTRIES", lambda p: str(p.get("served_entries", "")), right=True),
        Column("LAST SEEN", lambda p: when(session, p.get("last_seen_at"))),
    )
    print_table(session, session.api.items(path("poolers")), columns, "no poolers have registered")


@poolers.command("remove")
@click.argument("name", shell_complete=pooler_names)
@pass_session
def remove_pooler(session: Session, name: str) -> None:
    """Forget a PgBouncer that is gone for good, so that no move waits for it.

    Refused while its agent reports, and while DSNs name its address.
    """
    session.api.change("DELETE", path("poolers", name))
    _tell(session, {"pooler": name, "removed": True}, f"{name} is removed")


def _tell(session: Session, answer: Json, words: str) -> None:
    if session.json:
        print_json(answer)
    else:
        print_line(words)


def _health(server: Json) -> str:
    return "ok" if server.get("reachable", True) else "unreachable"


def _pooler_health(pooler: Json) -> str:
    if not pooler["alive"]:
        return "down"
    if pooler.get("problem"):
        return f"failed {pooler['problem']}"
    behind = pooler.get("served_version", 0) < pooler.get("wanted_version", 0)
    return "behind" if behind else "ok"


def _print_findings(findings: list[Json]) -> None:
    for finding in findings:
        if finding.get("level") == "ok":
            continue
        print_line(f"{finding.get('level')}: {finding.get('name')}: {finding.get('found')}")
        if finding.get("remedy"):
            click.echo(f"  {one_line(str(finding['remedy']))}")
