"""What a move is: the names it gives to things on servers, what stands in its way, its evidence."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.domain.administrators import EVERYTHING, Abilities
from control_plane.domain.backups import Extension, Locale, TableContent
from control_plane.domain.names import encode

MoveState = Literal["moving", "switched", "reversible", "reversed", "finished", "abandoned"]
Method = Literal["online", "offline"]

# A move in one of these states has things on servers that belong to nobody else.
OPEN_STATES: tuple[MoveState, ...] = ("moving", "switched", "reversible")
PAUSE_BUDGET_MS = 2_000
_PER_MAJOR = 10_000
_SPARE = 2
# Postgres does not tell how large its disk is; whoever enrols a server may, as a label.
STORAGE_LABEL = "storage_gb"
# Indexes are made beside their tables, and WAL is written meanwhile.
_ROOM = 1.3


class Link(msgspec.Struct, frozen=True):
    """One direction of replication of one move; every name on a server says whose it is.

    ``back`` leads from the new server to the old one.
    """

    operation_id: UUID
    back: bool = False

    @property
    def name(self) -> str:
        """Of the slot and the publication on the sending server, the subscription on the other."""
        return f"cp_{encode(self.operation_id)}" + ("_back" if self.back else "")

    @property
    def sender(self) -> str:
        """The login on the sending server that may stream changes, and nothing else."""
        return f"{self.name}_out"

    @property
    def applier(self) -> str:
        """The role on the receiving server in whose name changes are applied."""
        return f"{self.name}_in"


class Table(msgspec.Struct, frozen=True):
    """One table that holds rows; ``name`` is ``schema.name``, both quoted where needed.

    ``columns`` are quoted, without generated ones. ``keyed``: a changed row is found by a key.
    """

    name: str
    size: int
    columns: tuple[str, ...]
    digest: str
    keyed: bool
    logged: bool


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What preflight looks at in the database and on the server that it is on.

    ``row_security`` are the tables that have it; ``may`` is what the server's administrator may do.
    """

    version_num: int
    tables: tuple[Table, ...]
    foreign_tables: tuple[str, ...]
    large_objects: int
    event_triggers: tuple[str, ...]
    publications: tuple[str, ...]
    subscriptions: tuple[str, ...]
    extensions: tuple[Extension, ...]
    prepared_transactions: int
    locale: Locale
    size: int
    wal_level: str
    slots_free: int
    senders_free: int
    workers_free: int
    slot_wal_limit: int
    old_transactions: tuple[str, ...]
    row_security: tuple[str, ...] = ()
    may: Abilities = EVERYTHING

    @property
    def major(self) -> int:
        return self.version_num // _PER_MAJOR


class TargetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What preflight looks at on the server that the tenant goes to."""

    version_num: int
    extensions: frozenset[str]
    knows_locale: bool
    wal_level: str
    slots_free: int
    senders_free: int
    workers_free: int
    databases_size: int
    storage: int | None = None
    may: Abilities = EVERYTHING

    @property
    def major(self) -> int:
        return self.version_num // _PER_MAJOR


def storage_of(labels: Mapping[str, str]) -> int | None:
    """The bytes that a server has for databases, if whoever enrolled it said so."""
    try:
        return int(float(labels[STORAGE_LABEL]) * 1024**3)
    except (KeyError, ValueError, OverflowError):
        return None


class Survey(msgspec.Struct, frozen=True):
    """What preflight found: what forbids the move, what forbids it online, what it costs."""

    refusals: tuple[str, ...]
    offline_reasons: tuple[str, ...]
    advice: tuple[str, ...]


def survey(source: SourceFacts, target: TargetFacts) -> Survey:
    """Every obstacle at once, each with its remedy."""
    return Survey(
        refusals=tuple(_refusals(source, target)),
        offline_reasons=tuple(_offline_reasons(source, target)),
        advice=tuple(_advice(source, target)),
    )


def _refusals(source: SourceFacts, target: TargetFacts) -> Iterator[str]:
    if target.major < source.major:
        yield (
            f"the target is Postgres {target.major}, older than {source.major}: "
            "choose a server of the same or a newer major version"
        )
    for extension in source.extensions:
        if extension.name not in target.extensions:
            yield f"extension {extension.name} is not installed on the target: install it there"
    if not target.knows_locale:
        yield f"the target's machine has no locale {source.locale.collate}: install it there"
    if source.event_triggers:
        named = ", ".join(source.event_triggers)
        yield f"event triggers run as an administrator and are not moved: drop {named}"
    if source.prepared_transactions:
        yield (
            f"{source.prepared_transactions} prepared transactions wait in the database: "
            "commit them or roll them back"
        )
    if source.foreign_tables:
        named = ", ".join(source.foreign_tables)
        yield f"foreign tables need a server that a tenant cannot make: drop {named}"
    yield from _hidden_rows(source, target)
    yield from _lacking_room(source, target)


def _offline_reasons(source: SourceFacts, target: TargetFacts) -> Iterator[str]:
    if source.large_objects:
        yield f"{source.large_objects} large objects are not replicated"
    unlogged = [table.name for table in source.tables if not table.logged]
    if unlogged:
        yield f"unlogged tables are not replicated: {', '.join(unlogged)}"
    if source.publications or source.subscriptions:
        named = ", ".join((*source.publications, *source.subscriptions))
        yield f"it has publications or subscriptions of its own: {named}"
    yield from _lacking("source", source)
    yield from _lacking("target", target)


def _hidden_rows(source: SourceFacts, target: TargetFacts) -> Iterator[str]:
    for which, may in (("source", source.may), ("target", target.may)):
        if source.row_security and not may.bypassrls:
            named = ", ".join(source.row_security)
            yield (
                f"tables have row security, and the administrator of the {which} lacks BYPASSRLS, "
                f"without which they cannot be copied and compared as a whole: {named}"
            )


def _lacking_room(source: SourceFacts, target: TargetFacts) -> Iterator[str]:
    if target.storage is None:
        return
    needed, left = source.size * _ROOM, max(0, target.storage - target.databases_size)
    if left < needed:
        yield (
            f"it needs about {size_words(needed)} on the target, which has {size_words(left)} left "
            f"({STORAGE_LABEL} without its databases): choose another server, or make room there"
        )


def _lacking(which: str, facts: SourceFacts | TargetFacts) -> Iterator[str]:
    if lacking := facts.may.lacking_for_moves():
        yield f"the administrator of the {which} lacks {', '.join(lacking)} (tenantry servers show)"
    if facts.wal_level != "logical":
        yield f"wal_level of the {which} is {facts.wal_level}, not logical"
    if facts.slots_free < _SPARE:
        yield f"the {which} has no replication slot to spare: raise max_replication_slots"
    if facts.senders_free < _SPARE:
        yield f"the {which} has no sender to spare: raise max_wal_senders"
    if facts.workers_free < 1:
        yield (
            f"the {which} has no replication worker to spare: finish earlier moves, or raise "
            "max_logical_replication_workers"
        )


def _advice(source: SourceFacts, target: TargetFacts) -> Iterator[str]:
    if target.storage is None:
        yield (
            f"it needs about {size_words(source.size * _ROOM)} on the target; whether there is "
            f"room is not known (the server has no label {STORAGE_LABEL})"
        )
    keyless = [table.name for table in source.tables if not table.keyed and table.logged]
    if keyless:
        yield (
            f"without a primary key, every changed row is sought in the whole table while the "
            f"move lasts: {', '.join(keyless)}"
        )
    yield from (f"the copy waits for a transaction: {each}" for each in source.old_transactions)


class Progress(msgspec.Struct, frozen=True):
    """How far a copy is; ``retained`` is WAL kept on the source's disk for it, in bytes.

    ``rested`` is for how many seconds it stood back for those who work on the source.
    """

    done: int
    total: int
    rows: int
    seconds: float
    retained: int
    rested: float = 0.0

    def words(self) -> str:
        share = self.done / self.total if self.total else 1.0
        left = self.seconds / share - self.seconds if share > 0 else 0.0
        rested = f"; rested {self.rested:.0f} s for others" if self.rested else ""
        return (
            f"{size_words(self.done)} of about {size_words(self.total)}, {self.rows:,} rows, "
            f"about {max(0.0, left):.0f} s left; {size_words(self.retained)} of WAL kept{rested}"
        )


def size_words(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1024:  # noqa: PLR2004 - the unit itself
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


class Comparison(msgspec.Struct, frozen=True):
    """The evidence: what every table held on both sides at one position of the source's WAL."""

    lsn: str
    at: dt.datetime
    tables: dict[str, TableContent]
    seconds: float
    writers_held_ms: float | None = None
    differences: list[str] = []


def unequal(source: dict[str, TableContent], target: dict[str, TableContent]) -> list[str]:
    """Each table that is not the same on both sides, one sentence each; never a value."""
    found = []
    for name in sorted(source.keys() | target.keys()):
        here, there = source.get(name), target.get(name)
        if here is None or there is None:
            found.append(f"table {name} is only on the {'target' if here is None else 'source'}")
        elif here.rows != there.rows:
            found.append(f"table {name} has {here.rows} rows on the source, {there.rows} there")
        elif here.digest != there.digest:
            found.append(f"table {name} has {here.rows} rows on both sides that differ")
    return found
