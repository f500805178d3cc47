"""What a person or a script reads: JSON as it came, tables, facts and times."""

import datetime as dt
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

import click
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from control_plane.cli.durations import brief
from control_plane.cli.problems import Json, one_line
from control_plane.cli.session import Session

# Wide enough that a table is never cut or folded when a program reads it.
_PIPE_WIDTH = 4000
# A table may be so many times wider than the terminal before its cells are not folded any more.
_MOST_FOLDING = 1.7

_STYLES = {
    **dict.fromkeys(("active", "succeeded", "done", "alive", "yes", "allowed"), "green"),
    **dict.fromkeys(("failed", "unreachable", "down", "denied", "revoked", "expired"), "red"),
    **dict.fromkeys(
        ("provisioning", "enrolling", "pending", "running", "waiting", "cancelling", "draining"),
        "yellow",
    ),
    **dict.fromkeys(("suspended", "cancelled", "skipped", "archived", "behind"), "magenta"),
}

Cell = Callable[[Json], str | None]


@dataclass(frozen=True)
class Column:
    """A heading and how to read its cell from an item; ``words`` are coloured by meaning."""

    title: str
    cell: Cell
    words: bool = False
    right: bool = False


def console(stream: IO[str] | None = None) -> Console:
    """A console on stdout, or another stream; plain and unbounded unless it is a terminal."""
    stream = stream or sys.stdout
    made = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        return Console(
            file=stream,
            highlight=False,
            markup=False,
            emoji=False,
            width=_PIPE_WIDTH,
            color_system=None,
        )
    if made.no_color:
        return Console(file=stream, highlight=False, markup=False, emoji=False, color_system=None)
    return made


def speaks_unicode() -> bool:
    """Whether stdout can show more than ASCII."""
    return (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")


def print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=not speaks_unicode()))


def print_line(text: str) -> None:
    click.echo(one_line(text))


def print_table(
    session: Session, items: Sequence[Json], columns: Sequence[Column], empty: str
) -> None:
    """The items as a table, or as a JSON array; ``empty`` says on stderr that there are none."""
    if session.json:
        print_json(list(items))
        return
    if not items:
        click.echo(empty, err=True)
        return
    out = console()
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        justify: JustifyMethod = "right" if column.right else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=number == 0)
    for item in items:
        table.add_row(*(_shown(column, item) for column in columns))
    if _far_too_wide(out, table):
        _print_cards(out, items, columns)
    else:
        _print_tidy(out, table)


def print_facts(session: Session, document: Json, facts: Sequence[tuple[str, str | None]]) -> None:
    """One thing as a list of facts, or as the JSON object it came as; empty facts are left out."""
    if session.json:
        print_json(document)
        return
    shown = [(name, coloured(value)) for name, value in facts if value]
    _print_tidy(console(), _card(shown))


def coloured(text: str) -> Text:
    """The text without anything that steers a terminal, coloured if its first word has a colour."""
    safe = one_line(text)
    return Text(safe, style=_STYLES.get(safe.partition(" ")[0], ""))


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


def _shown(column: Column, item: Json) -> Text:
    text = column.cell(item)
    if text in (None, ""):
        return Text("-", style="dim")
    return coloured(str(text)) if column.words else Text(one_line(str(text)))


def _far_too_wide(out: Console, table: Table) -> bool:
    """Whether folding the cells would leave columns of a few letters."""
    wanted = Measurement.get(out, out.options.update(max_width=_PIPE_WIDTH), table).maximum
    return wanted > _MOST_FOLDING * out.width


def _print_cards(out: Console, items: Sequence[Json], columns: Sequence[Column]) -> None:
    """Each item as a list of facts, for a terminal that is too narrow for the table."""
    for number, item in enumerate(items):
        if number:
            out.print()
        card = [(c.title.lower(), _shown(c, item)) for c in columns]
        _print_tidy(out, _card(card))


def _card(facts: Sequence[tuple[str, Text]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), value)
    return table


def _print_tidy(out: Console, table: Table) -> None:
    """Print without the spaces that pad the last column, which a pasted table would carry."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
