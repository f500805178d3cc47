"""How two schemas differ, and the difference in words of DDL that a person can read.

The text is for reading: what it says about privileges and states is not always a whole statement.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

# Kind ("table", "column", "index", …) -> name -> canonical text.
Definition: TypeAlias = dict[str, dict[str, str]]
Action = Literal["missing", "unexpected", "different"]

# From what stands alone to what stands on it.
KINDS = (
    "schema",
    "extension",
    "type",
    "sequence",
    "table",
    "partition",
    "column",
    "constraint",
    "index",
    "view",
    "function",
    "trigger",
    "rule",
    "policy",
    "statistics",
    "event trigger",
    "other",
    "access",
)
_LAST_PART = re.compile(r'(?P<rest>.+)\.(?P<last>"(?:[^"]|"")*"|[^."]+)')
# How a missing thing of this kind would be made; {rest} and {last} are the parts of its name.
_STATEMENTS = {
    "schema": "CREATE SCHEMA {name};",
    "extension": "CREATE EXTENSION {name} SCHEMA {text};",
    "type": "CREATE TYPE {name} AS {text};",
    "sequence": "CREATE SEQUENCE {name}; -- {text}",
    "partition": "-- partitions: {text}",
    "column": "ALTER TABLE {rest} ADD COLUMN {last} {text};",
    "constraint": "ALTER TABLE {rest} ADD CONSTRAINT {last} {text};",
    "view": "CREATE {text};",
    "policy": "CREATE POLICY {last} ON {rest} {text};",
    "event trigger": "CREATE EVENT TRIGGER {name} {text};",
    "other": "-- {name}",
    "access": "-- {name}: {text}",
}


class SchemaReading(msgspec.Struct, frozen=True):
    """A schema: its fingerprint (64 hex digits) and the definition it stands for."""

    fingerprint: str
    definition: Definition


class Change(msgspec.Struct, frozen=True):
    """One object that is not as the golden schema has it; ``golden`` and ``found`` are its texts.

    ``missing`` has no ``found``, ``unexpected`` no ``golden``, ``different`` both.
    """

    kind: str
    name: str
    action: Action
    golden: str | None
    found: str | None


def difference(golden: Definition, found: Definition) -> list[Change]:
    """Every object in which ``found`` differs from ``golden``, in an order that never varies."""
    changes: list[Change] = []
    for kind in sorted(golden.keys() | found.keys(), key=_rank):
        wanted, held = golden.get(kind, {}), found.get(kind, {})
        changes += [
            _change(kind, name, wanted.get(name), held.get(name))
            for name in sorted(wanted.keys() | held.keys())
            if wanted.get(name) != held.get(name)
        ]
    return changes


def as_ddl(changes: Sequence[Change]) -> list[str]:
    """The changes as text, one entry each; a table that is missing or new brings its columns along.

    What is missing is shown as the statement that would make it; what is unexpected as the
    statement that would have made it, commented out; what is different in both its forms.
    """
    whole = {change.name for change in changes if change.kind == "table" and _one_sided(change)}
    return [
        _entry(change, [part for part in changes if _belongs(part, change)])
        for change in changes
        if not (change.kind in ("column", "constraint") and _parts(change.name)[0] in whole)
    ]


def _change(kind: str, name: str, golden: str | None, found: str | None) -> Change:
    action: Action = "different"
    if found is None:
        action = "missing"
    elif golden is None:
        action = "unexpected"
    return Change(kind, name, action, golden, found)


def _rank(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind


def _one_sided(change: Change) -> bool:
    return change.action != "different"


def _belongs(part: Change, table: Change) -> bool:
    return (
        table.kind == "table"
        and _one_sided(table)
        and part.kind in ("column", "constraint")
        and _parts(part.name)[0] == table.name
    )


def _entry(change: Change, parts: Sequence[Change]) -> str:
    header = f"-- {change.action} {change.kind} {change.name}"
    if change.golden is not None and change.found is not None:
        return header + _both(change.golden, change.found)
    statement = _statement(change, parts)
    if change.action == "unexpected":
        statement = _commented(statement)
    return f"{header}\n{statement}"


def _both(golden: str, found: str) -> str:
    if "\n" not in golden + found:
        return f": {golden or 'nothing'} -> {found or 'nothing'}"
    lines = difflib.unified_diff(
        golden.splitlines(), found.splitlines(), "golden", "found", lineterm=""
    )
    return "\n" + _commented("\n".join(lines))


def _statement(change: Change, parts: Sequence[Change]) -> str:
    text = change.golden if change.golden is not None else change.found or ""
    if change.kind == "table":
        return _table(change.name, text, parts)
    pattern = _STATEMENTS.get(change.kind)
    if pattern is None:
        return f"{text};" if text else f"-- {change.name}"
    rest, last = _parts(change.name)
    # Not str.format: the text may hold braces.
    values = {"name": change.name, "rest": rest, "last": last, "text": text}
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], pattern)


def _table(name: str, text: str, parts: Sequence[Change]) -> str:
    lines = []
    for part in parts:
        word = "CONSTRAINT " if part.kind == "constraint" else ""
        body = part.golden if part.golden is not None else part.found
        lines.append(f"    {word}{_parts(part.name)[1]} {body}")
    head, _, tail = text.partition(" ")
    created, rest = (f"{head} {tail}", "") if head != "TABLE" else ("TABLE", tail)
    columns = ",\n".join(lines)
    return f"CREATE {created} {name} (\n{columns}\n){' ' + rest if rest else ''};"


def _parts(name: str) -> tuple[str, str]:
    """``schema.table.column`` as ``schema.table`` and ``column``; quoted names stay whole."""
    found = _LAST_PART.fullmatch(name)
    return (found["rest"], found["last"]) if found else ("", name)


def _commented(text: str) -> str:
    return "\n".join(f"-- {line}" for line in text.splitlines())
