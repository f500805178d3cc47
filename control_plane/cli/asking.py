"""Asking for work: as a dry run, at once, or followed to its end."""

from collections.abc import Mapping

from control_plane.cli.problems import Json
from control_plane.cli.progress import conclude
from control_plane.cli.rehearsal import print_rehearsal
from control_plane.cli.session import Session


def ask(  # noqa: PLR0913 - what a request consists of, and how to answer
    session: Session,
    method: str,
    target: str,
    body: Json | None = None,
    query: Mapping[str, str | int | None] | None = None,
    *,
    dry_run: bool,
    wait: bool,
) -> None:
    """Ask for an operation and tell of it; a dry run tells what would be done."""
    told = {**(query or {}), **({"dry_run": "true"} if dry_run else {})}
    answer = session.api.change(method, target, body, told or None)
    if dry_run:
        print_rehearsal(session, answer)
    else:
        conclude(session, answer, wait=wait)
