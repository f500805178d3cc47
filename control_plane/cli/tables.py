"""Lists of things as tables and single things as lists of facts, or as the JSON they came as."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from control_plane.cli.output import console, print_json
from control_plane.cli.problems import Json, one_line, say
from control_plane.cli.session import Session

_FEWEST_COLUMNS = 4
_GAP = "  "

_STYLES = {
    **dict.fromkeys(("active", "succeeded", "ok", "allowed", "complete", "passed"), "green"),
    **dict.fromkeys(("failed", "unreachable", "down", "denied", "revoked", "expired"), "red"),
    **dict.fromkeys(("corrupt", "breached", "overdue"), "red"),
    **dict.fromkeys(
        ("provisioning", "enrolling", "pending", "running", "waiting", "cancelling", "draining"),
        "yellow",
    ),
    **dict.fromkeys(("suspended", "cancelled", "archived", "behind", "pruned"), "magenta"),
}
_COLOURED_FACTS = frozenset({"state", "health"})

Row = list[str]
Alarm = Callable[[Json], bool]


@dataclass(frozen=True)
class Column:
    """A heading and how to read its cell from an item; ``words`` are coloured by meaning."""

    title: str
    cell: Callable[[Json], str | None]
    words: bool = False
    right: bool = False


def print_table(
    session: Session,
    items: Sequence[Json],
    columns: Sequence[Column],
    empty: str,
    *,
    alarm: Alarm | None = None,
) -> None:
    """The items as a table, or as a JSON array; ``empty`` says on stderr that there are none.

    The lines of items that ``alarm`` is true of are red.
    """
    if session.json:
        print_json(list(items))
        return
    if not items:
        say(empty)
        return
    rows = [[one_line(str(column.cell(item) or "-")) for column in columns] for item in items]
    out = console()
    if out.is_terminal:
        _draw(out, columns, rows, ["red" if alarm and alarm(item) else "" for item in items])
    else:
        titles = [column.title for column in columns]
        _print_aligned([titles, *rows], {n for n, column in enumerate(columns) if column.right})


def print_facts(session: Session, document: Json, facts: Sequence[tuple[str, str | None]]) -> None:
    """One thing as a list of facts, or as the JSON object it came as; empty facts are left out."""
    if session.json:
        print_json(document)
        return
    shown = [[name, one_line(str(value))] for name, value in facts if value]
    out = console()
    if out.is_terminal:
        out.print(_card([(name, _cell(text, name in _COLOURED_FACTS)) for name, text in shown]))
    else:
        _print_aligned(shown)


def _print_aligned(rows: Sequence[Row], right: frozenset[int] | set[int] = frozenset()) -> None:
    """For a program: never cut, never folded, and quick with thousands of rows."""
    click.echo("\n".join(_aligned(rows, right)))


def _aligned(rows: Sequence[Row], right: frozenset[int] | set[int]) -> Iterator[str]:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = []
        for number, (text, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(text))
            padded.append(space + text if number in right else text + space)
        yield _GAP.join(padded).rstrip()


def _draw(
    out: Console, columns: Sequence[Column], rows: Sequence[Row], styles: Sequence[str]
) -> None:
    """For a person: without the last columns, or as cards, when words would have to be broken."""
    cells = [
        [_cell(text, column.words) for text, column in zip(row, columns, strict=True)]
        for row in rows
    ]
    for kept in range(len(columns), min(_FEWEST_COLUMNS, len(columns)) - 1, -1):
        widths = _widths(columns[:kept], rows, out.width)
        if widths is not None:
            out.print(_table(columns, widths, cells, styles))
            _name_left_out(out, columns[kept:])
            return
    for number, row in enumerate(cells):
        if number:
            out.print()
        card = _card(list(zip((c.title.lower() for c in columns), row, strict=True)))
        out.print(card, style=styles[number])


def _widths(columns: Sequence[Column], rows: Sequence[Row], most: int) -> list[int] | None:
    """How wide each column is for the table to fit; ``None`` when that would break a word.

    The first column is never folded, the widest of the others are folded first.
    """
    texts = [[column.title, *(row[n] for row in rows)] for n, column in enumerate(columns)]
    widths = [max(map(cell_len, column)) for column in texts]
    least = [max(cell_len(word) for text in column for word in text.split()) for column in texts]
    least[0] = widths[0]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - most
    for _ in range(excess):
        flexible = [n for n, width in enumerate(widths) if width > least[n]]
        if not flexible:
            return None
        widths[max(flexible, key=widths.__getitem__)] -= 1
    return widths


def _table(
    columns: Sequence[Column],
    widths: Sequence[int],
    rows: Sequence[Sequence[Text]],
    styles: Sequence[str],
) -> Table:
    """The first columns, as many as there are widths."""
    table = _grid(header=True)
    for column, width in zip(columns, widths, strict=False):
        justify: JustifyMethod = "right" if column.right else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", width=width)
    for row, style in zip(rows, styles, strict=True):
        table.add_row(*row[: len(widths)], style=style)
    return table


def _name_left_out(out: Console, columns: Sequence[Column]) -> None:
    if columns:
        names = ", ".join(column.title for column in columns)
        out.print(Text(f"no room for: {names}", style="dim"))


def _card(facts: Sequence[tuple[str, Text]]) -> Table:
    table = _grid(header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), value)
    return table


def _grid(*, header: bool) -> Table:
    gap = (0, len(_GAP), 0, 0)
    return Table(box=None, show_header=header, header_style="bold", pad_edge=False, padding=gap)


def _cell(text: str, coloured: bool) -> Text:  # noqa: FBT001 - a private pair of words
    if text == "-":
        return Text(text, style="dim")
    return Text(text, style=_STYLES.get(text.partition(" ")[0], "") if coloured else "")
