"""The named queries of the clinic template: what a file's header says, and its text for PREPARE.

A file begins with comments, ``-- key: value``, continued on lines that are indented by two. See
``docs/query-budget.md`` for the keys.
"""

import re
from dataclasses import dataclass

from control_plane.config import REPOSITORY

QUERIES = REPOSITORY / "tenant_template" / "queries"

_KEYS = ("name", "shows", "parameters", "budget", "uses", "typical", "worst")
_KEY = re.compile(r"([a-z]+):(?: (.*))?")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")


@dataclass(frozen=True)
class Budget:
    """What one run may cost, whatever the machine.

    ``buffers``: shared blocks of 8 kB, found in memory or read. ``rows``: returned. ``removed``:
    rows that were read and thrown away by a filter, for each row returned.
    """

    buffers: int
    rows: int
    removed: int


@dataclass(frozen=True)
class NamedQuery:
    """One file of ``tenant_template/queries``.

    ``parameters`` maps each name to its type, in the order of their numbers in ``numbered``.
    ``uses`` are the indexes that every plan must use.
    ``typical`` and ``worst`` are queries whose columns are the parameters, a row for each run.
    """

    name: str
    shows: str
    parameters: dict[str, str]
    budget: Budget
    uses: tuple[str, ...]
    typical: str
    worst: str
    text: str

    @property
    def numbered(self) -> str:
        """The text with ``$1`` for the first parameter and so on."""
        numbers = {name: f"${n}" for n, name in enumerate(self.parameters, 1)}
        return _PARAMETER.sub(lambda found: numbers[found[1]], self.text)


def registered() -> list[NamedQuery]:
    """Every query of the clinic template, by name."""
    return [parse(path.stem, path.read_text()) for path in sorted(QUERIES.glob("*.sql"))]


def parse(stem: str, source: str) -> NamedQuery:
    """The query in a file called ``stem``.sql.

    Raises:
        ValueError: the header lacks or repeats a key, or does not fit the text below it.
    """
    header, text = _split(source)
    given = _entries(stem, header)
    if missing := [key for key in _KEYS if not given.get(key)]:
        raise ValueError(f"{stem}.sql: the header lacks {', '.join(missing)}")
    if given["name"] != stem:
        raise ValueError(f"{stem}.sql: the header calls it {given['name']!r}")
    parameters = _pairs(given["parameters"])
    used = set(_PARAMETER.findall(text))
    if differing := used.symmetric_difference(parameters):
        raise ValueError(f"{stem}.sql: header and text differ in {', '.join(sorted(differing))}")
    return NamedQuery(
        name=stem,
        shows=given["shows"],
        parameters=parameters,
        budget=_budget(stem, given["budget"]),
        uses=tuple(_list(given["uses"])),
        typical=given["typical"],
        worst=given["worst"],
        text=text,
    )


def _split(source: str) -> tuple[list[str], str]:
    lines = source.splitlines()
    length = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return lines[:length], "\n".join(lines[length:]).strip().removesuffix(";")


def _entries(stem: str, header: list[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    key = ""
    for line in (line.removeprefix("--") for line in header):
        if key and line.startswith("   "):
            entries[key] = f"{entries[key]} {line.strip()}".strip()
        elif (found := _KEY.fullmatch(line.strip())) and found[1] in _KEYS:
            key = found[1]
            if key in entries:
                raise ValueError(f"{stem}.sql: the header says {key} twice")
            entries[key] = found[2] or ""
        else:
            raise ValueError(f"{stem}.sql: not a line of a header: --{line}")
    return entries


def _budget(stem: str, text: str) -> Budget:
    given = {key: int(value) for key, value in _pairs(text).items()}
    if set(given) != set(Budget.__dataclass_fields__):
        raise ValueError(f"{stem}.sql: a budget is buffers, rows and removed")
    return Budget(**given)


def _pairs(text: str) -> dict[str, str]:
    """``name value, name value``."""
    return dict(_pair(entry) for entry in _list(text))


def _pair(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition(" ")
    return name, value


def _list(text: str) -> list[str]:
    """``this, that``; ``none`` is the empty list."""
    return [] if text == "none" else text.split(", ")
