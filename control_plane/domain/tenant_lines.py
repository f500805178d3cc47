"""Lists of new tenants as people keep them: CSV with a heading, from a spreadsheet or by hand."""

import csv
import io
from typing import get_args

import msgspec

from control_plane.domain.errors import Invalid
from control_plane.domain.tenants import TIERS, Tier

COLUMNS = ("name", "slug", "tier", "region", "server")
LINES_MOST = 100
BYTES_MOST = 128 * 1024
_NAME_MOST = 200
_TEXT_MOST = 100


class TenantLine(msgspec.Struct, frozen=True):
    """One line; ``number`` is that of the file, the heading being 1. Empty cells are ``""``."""

    number: int
    name: str
    slug: str = ""
    tier: str = ""
    region: str = ""
    server: str = ""


def decode_list(raw: bytes) -> str:
    """The text of a file.

    Raises:
        Invalid: it is too large, or no UTF-8.
    """
    if len(raw) > BYTES_MOST:
        raise _invalid(f"is larger than {BYTES_MOST // 1024} KiB; divide it into several")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid('is not UTF-8; save it as "CSV UTF-8" and try again') from error
    if "\0" in text:
        raise _invalid("is no text; save the sheet as CSV and try again")
    return text


def read_lines(text: str) -> list[TenantLine]:
    """The lines that are not empty; columns may be in any order, all but ``name`` may be missing.

    Raises:
        Invalid: there is no heading with ``name``, a column is unknown, or there are too many.
    """
    text = decode_list(text.encode(errors="replace"))
    heading = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    # From the first line that says anything, but counted from the file's own beginning.
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns: list[str] | None = None
    lines: list[TenantLine] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns(cells)
                continue
            lines.append(_line(reader.line_num, columns, cells))
    except csv.Error as error:
        raise _invalid(f"line {reader.line_num} cannot be read: {error}") from error
    if not lines:
        raise _invalid(f"has no line below its heading; the heading is {','.join(COLUMNS)}")
    if len(lines) > LINES_MOST:
        raise _invalid(f"has {len(lines)} lines; {LINES_MOST} at most, divide it into several")
    return lines


def write_lines(lines: list[TenantLine]) -> str:
    """The same lines as CSV, for ``read_lines``."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows([getattr(line, column) for column in COLUMNS] for line in lines)
    return out.getvalue()


def check_line(line: TenantLine) -> Tier:
    """The tier of the line, ``standard`` when it names none.

    Raises:
        Invalid: a cell cannot be meant; it names the column and the remedy.
    """
    if not line.name:
        raise _invalid("give the clinic a name", "name")
    for column, most in (("name", _NAME_MOST), ("region", _TEXT_MOST), ("server", _TEXT_MOST)):
        value = getattr(line, column)
        if len(value) > most or not (value.isprintable() or not value):
            raise _invalid(f"use up to {most} printable characters", column)
    wanted = line.tier.lower() or "standard"
    tier = next((one for one in TIERS if one == wanted), None)
    if tier is None:
        raise _invalid(f"{line.tier!r} is none; use {', '.join(get_args(Tier))}", "tier")
    return tier


def _columns(cells: list[str]) -> list[str]:
    columns = [cell.strip().lower() for cell in cells]
    unknown = [column for column in columns if column not in (*COLUMNS, "")]
    if unknown or "name" not in columns:
        what = f"has a column {unknown[0]!r}" if unknown else "has no column name"
        raise _invalid(f"{what}; its first line has to name columns out of {','.join(COLUMNS)}")
    if len(set(filter(None, columns))) < len(list(filter(None, columns))):
        raise _invalid("names a column twice")
    return columns


def _line(number: int, columns: list[str], cells: list[str]) -> TenantLine:
    named = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    return TenantLine(number, **{column: named.get(column, "") for column in COLUMNS})


def _invalid(message: str, field: str = "list") -> Invalid:
    said = f"the list {message}" if field == "list" else message
    return Invalid(said, [{"field": field, "message": said}])
