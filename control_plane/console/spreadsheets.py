"""CSV for people, who open it in a spreadsheet: no cell of it is ever a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

from litestar import Response

# What a spreadsheet takes for the beginning of a formula, also after its own trimming.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Excel reads UTF-8 only with this mark.
MARK = "\ufeff"


def cell(value: object) -> str:
    """The value as text; one that could be a formula gets an apostrophe before it."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def csv_rows(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV."""
    out = io.StringIO()
    csv.writer(out).writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def csv_headers(name: str) -> dict[str, str]:
    """A file to keep, not a page to look at."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def csv_answer(name: str, rows: Iterable[Sequence[object]]) -> Response[str]:
    """The rows as a file."""
    return Response(MARK + csv_rows(rows), media_type="text/csv", headers=csv_headers(name))
