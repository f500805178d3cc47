"""What a person or a script reads: JSON as it came, lines, and times."""

import datetime as dt
import json
import sys

import click
from rich.console import Console

from control_plane.cli.durations import brief
from control_plane.cli.problems import one_line
from control_plane.cli.session import Session

_GIGABYTE = 1_000_000_000
_UNITS = (("TB", 1000 * _GIGABYTE), ("GB", _GIGABYTE), ("MB", 1_000_000), ("kB", 1_000))


def console() -> Console:
    """A console on stdout; without any colour where NO_COLOR asks for that."""
    made = Console(highlight=False, markup=False, emoji=False)
    if made.no_color:
        return Console(highlight=False, markup=False, emoji=False, color_system=None)
    return made


def speaks_unicode() -> bool:
    """Whether stdout can show more than ASCII."""
    return (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")


def print_json(document: object) -> None:
    """The one document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=not speaks_unicode()))


def print_line(text: str) -> None:
    click.echo(one_line(text))


def when(session: Session, stamp: str | None) -> str | None:
    """``3 min ago`` or ``in 2 h``; with ``--utc`` the time itself."""
    if not stamp:
        return None
    at = dt.datetime.fromisoformat(stamp)
    if session.utc:
        return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    seconds = (dt.datetime.now(dt.UTC) - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{brief(seconds)} ago" if seconds > 0 else f"in {brief(-seconds)}"


def size(amount: int | None) -> str | None:
    """A number of bytes for people: ``512 B``, ``4.2 kB``, ``1.31 GB``."""
    if amount is None:
        return None
    for unit, bytes_of_it in _UNITS:
        if amount >= bytes_of_it:
            shown = amount / bytes_of_it
            return f"{shown:.2f} {unit}" if bytes_of_it >= _GIGABYTE else f"{shown:.1f} {unit}"
    return f"{amount} B"
