"""Which of several sessions loads which table of an archive.

Each session is fed the whole archive and skips what the others load: that costs the reading and
decrypting again, and is worth it where a server has work for more than one.
"""

import re
from collections.abc import Mapping

import msgspec

from control_plane.adapters.archive_toc import Contents, Entry
from control_plane.adapters.restore_passes import Passes

_TABLE = "TABLE DATA"
_INDEXES = frozenset({"INDEX", "CONSTRAINT"})
# A share with less than this part of all rows is not worth another session.
_LEAST = 0.1
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


class Share(msgspec.Struct, frozen=True):
    """What one session does: data to load, and indexes of these tables alone to make then."""

    data: list[int]
    indexes: list[int]


def shares(contents: Contents, plan: Passes, rows: Mapping[str, int], most: int) -> list[Share]:
    """The data of ``plan``, in 1 to ``most`` shares that can be loaded at the same time.

    ``rows`` tells how many there are, by the quoted name of the table. What is no table, or depends
    on the data of one, is in the first share. One share alone has no indexes: they are made by
    several sessions afterwards.
    """
    kinds = {entry.number: entry.kind for entry in contents.entries}
    wanted = set(plan.data)
    entries = [entry for entry in contents.entries if entry.number in wanted]
    sizes = {
        entry.number: rows.get(f"{_quoted(entry.schema)}.{_quoted(entry.name)}", 0)
        for entry in entries
        if entry.kind == _TABLE and _is_free(entry, kinds)
    }
    places = _places(sizes, most)
    found = [Share([], []) for _ in range(max(places.values(), default=0) + 1)]
    tables: dict[int, int] = {}
    for entry in entries:
        place = places.get(entry.number, 0)
        found[place].data.append(entry.number)
        if entry.number in places:
            tables |= dict.fromkeys(entry.needs, place)
    if len(found) > 1:
        _add_indexes(contents, plan, found, tables)
    return found


def _add_indexes(
    contents: Contents, plan: Passes, found: list[Share], tables: Mapping[int, int]
) -> None:
    later = set(plan.after)
    for entry in contents.entries:
        if entry.number in later and entry.kind in _INDEXES and not entry.needs & later:
            places = {tables[number] for number in entry.needs if number in tables}
            if len(places) == 1:
                found[places.pop()].indexes.append(entry.number)


def _is_free(entry: Entry, kinds: Mapping[int, str]) -> bool:
    """Whether its table is in the archive, so that there are no keys yet that bind its rows."""
    return all(kinds.get(number, _TABLE) != _TABLE for number in entry.needs)


def _places(sizes: Mapping[int, int], most: int) -> dict[int, int]:
    """The share of each table: the largest ones first, each to the share with the least rows."""
    filled = [0] * most
    places = {}
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        place = filled.index(min(filled))
        filled[place] += sizes[number]
        places[number] = place
    if min(filled) < _LEAST * sum(filled):
        return _places(sizes, most - 1) if most > 1 else places
    return places


def _quoted(name: str) -> str:
    """As Postgres quotes it, except for words that it reserves: their tables count as empty."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'
