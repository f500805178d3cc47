"""``tenantry people …``: who may sign in to the console."""

from urllib.parse import urljoin

import click

from control_plane.cli.commands import Group
from control_plane.cli.output import print_json, print_line, when
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, problem, say
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table
from control_plane.domain.people import PERSON_ROLES


@click.group(
    cls=Group,
    examples=(
        'tenantry people add ada@example.com --name "Ada Byron" --role sales_ops',
        "tenantry people link ada@example.com",
        "tenantry people disable ada@example.com",
    ),
)
def people() -> None:
    """Add, list and disable the people of the console; make links to sign in with."""


@people.command("add")
@click.argument("email")
@click.option("--name", help="What the pages call the person; the address when left out.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(PERSON_ROLES),
    help="Repeatable. app lets a person hand DSNs over.",
)
@pass_session
def add(session: Session, email: str, name: str | None, roles: tuple[str, ...]) -> None:
    """Let somebody sign in: people link makes the first way in."""
    wanted: Json = {"email": email, "name": name or email, "roles": list(dict.fromkeys(roles))}
    made = session.api.change("POST", path("people"), wanted)
    if session.json:
        print_json(made)
    else:
        print_line(f"{made['email']} is added; tenantry people link {made['email']} lets them in")


@people.command("list")
@pass_session
def list_(session: Session) -> None:
    """List everybody, disabled ones too."""
    columns = (
        Column("EMAIL", lambda p: p["email"]),
        Column("NAME", lambda p: p["name"]),
        Column("ROLES", lambda p: ", ".join(p["roles"])),
        Column("STATE", lambda p: "disabled" if p["disabled_at"] else "active", words=True),
        Column("ADDED", lambda p: when(session, p["created_at"])),
    )
    print_table(session, session.api.items(path("people")), columns, "no people")


@people.command("disable")
@click.argument("email")
@pass_session
def disable(session: Session, email: str) -> None:
    """End somebody's access now: open sessions end too."""
    person = _find(session, email)
    answer = session.api.change("DELETE", path("people", person["id"]))
    if session.json:
        print_json(answer)
    else:
        print_line(f"{person['email']} is disabled")


@people.command("link")
@click.argument("email")
@pass_session
def link(session: Session, email: str) -> None:
    """Make a link that signs somebody in, once, within a day, and print it."""
    person = _find(session, email)
    made = session.api.change("POST", path("people", person["id"], "links"))
    if made["url"] is None:
        raise problem(Exit.FAILED, "link_lost", "the link was already shown once; ask again")
    url = urljoin(session.api.url, made["url"])
    if session.json:
        print_json({**made, "url": url})
        return
    click.echo(url)
    say(f"it signs {person['email']} in once, until {when(session, made['expires_at'])}")


def _find(session: Session, email: str) -> Json:
    for person in session.api.items(path("people")):
        if person["email"] == email.lower():
            return person
    raise problem(Exit.NOT_FOUND, "not_found", f"there is no person {email!r}")
