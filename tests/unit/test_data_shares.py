"""Tables are spread over sessions by their rows, unless one of them has nearly all."""

from collections.abc import Mapping, Sequence

import pytest

from control_plane.adapters.archive_toc import Contents, Entry, Section
from control_plane.adapters.data_shares import Share, shares
from control_plane.adapters.restore_passes import Passes

NAMES = ("a", "b", "c", 'd"')


def entry(number: int, kind: str, name: str = "", *needs: int) -> Entry:
    return Entry(number, kind, name, "s", "", Section.DATA, "", frozenset(needs))


# Tables have the numbers 1 to 4, their data 11 to 14.
TABLES = [entry(number, "TABLE", name) for number, name in enumerate(NAMES, 1)]
DATA = [entry(number + 10, "TABLE DATA", name, number) for number, name in enumerate(NAMES, 1)]
# An extension's own table is not in the archive; its keys are there before its rows.
OTHERS = [
    entry(20, "SEQUENCE SET", "q", 1),
    entry(21, "BLOBS"),
    entry(22, "TABLE DATA", "of an extension", 99),
    entry(23, "TABLE DATA", "after another", 1, 22),
]
CONTENTS = Contents([*TABLES, *DATA, *OTHERS], b"")
ALL = [11, 12, 13, 14, 20, 21, 22, 23]


def planned(data: list[int], after: Sequence[int] = ()) -> Passes:
    return Passes([], data, list(after), {}, [])


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        ({"a": 10, "b": 30, "c": 20, '"d"""': 0}, 2, [[12, 14, 20, 21, 22, 23], [11, 13]]),
        ({"a": 10, "b": 30, "c": 20, '"d"""': 0}, 1, [ALL]),
        ({"a": 10, "b": 10, "c": 10, '"d"""': 9}, 3, [[11, 14, 20, 21, 22, 23], [12], [13]]),
        # Not enough for a second session, or for a third.
        ({"a": 100, "b": 5, "c": 5}, 2, [ALL]),
        ({"a": 100, "b": 90, "c": 5}, 3, [[11, 20, 21, 22, 23], [12, 13, 14]]),
        ({}, 2, [ALL]),
    ],
)
def test_tables_are_spread(rows: Mapping[str, int], most: int, expected: list[list[int]]) -> None:
    counted = {f"s.{name}": count for name, count in rows.items()}
    found = shares(CONTENTS, planned(ALL), counted, most)
    assert [share.data for share in found] == expected


def test_only_what_is_wanted_and_in_the_order_of_the_archive() -> None:
    found = shares(CONTENTS, planned([21, 12, 11]), {"s.a": 1, "s.b": 1}, 2)
    assert found == [Share([11, 21], []), Share([12], [])]


def test_an_archive_without_tables() -> None:
    assert shares(Contents([], b""), planned([]), {}, 2) == [Share([], [])]


def test_indexes_are_made_where_their_table_was_loaded() -> None:
    after = [
        entry(31, "INDEX", "", 1),
        entry(32, "INDEX", "", 2),
        entry(33, "CONSTRAINT", "", 2, 90),
        entry(34, "FK CONSTRAINT", "", 1, 2, 33),
        entry(35, "INDEX", "of a partitioned table", 91),
        entry(36, "CONSTRAINT", "over an index", 1, 31),
        entry(37, "TRIGGER", "", 2),
    ]
    contents = Contents([*CONTENTS.entries, *after], b"")
    plan = planned(ALL, [one.number for one in after])
    rows = {"s.a": 10, "s.b": 10}
    assert [share.indexes for share in shares(contents, plan, rows, 2)] == [[31], [32, 33]]
    # Several sessions make them afterwards if one has loaded everything.
    assert [share.indexes for share in shares(contents, plan, rows, 1)] == [[]]
