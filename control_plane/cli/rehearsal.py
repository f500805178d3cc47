"""The answer to ``--dry-run``: what would be done, and where."""

import click

from control_plane.cli.output import print_json, print_line
from control_plane.cli.problems import Json, one_line
from control_plane.cli.session import Session


def print_rehearsal(session: Session, answer: Json) -> None:
    """The plan's steps in order, and for a new tenant the server and why that one."""
    if session.json:
        print_json(answer)
        return
    subject = answer.get("tenant") or ""
    print_line(f"{answer['kind']} {subject} would run these steps; nothing was changed:")
    for number, step in enumerate(answer["steps"], start=1):
        click.echo(f"  {number:>2}  {one_line(step)}")
    placement = answer.get("placement")
    if placement:
        print_line(f"placement: {placement['reason']}")
        print_line(f"database: {'taken from the pool' if placement['claimed'] else 'a new one'}")
