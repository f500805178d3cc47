"""Both databases of a move compared table by table: before the switch, and as they were at it."""

import time
from collections.abc import Sequence

import msgspec

from control_plane.adapters import clock
from control_plane.adapters.comparison import (
    paired_snapshots,
    read_large_objects,
    read_tables,
)
from control_plane.adapters.schema_copy import Place
from control_plane.adapters.sequences import sequences_behind
from control_plane.catalog import moves
from control_plane.domain.backups import TableContent
from control_plane.domain.errors import ContentMismatch
from control_plane.domain.moves import Comparison, Table, unequal
from workers.engine.step import Done, Outcome, Skip, StepContext
from workers.steps import moving, switching
from workers.steps.moving import Way

_AT_ONCE = 2
_SHOWN = 10


async def compare(ctx: StepContext, way: Way) -> Outcome:
    """Every table holds the same on both sides at one moment; the evidence is in the catalog.

    Raises:
        ContentMismatch: one does not; nothing is switched.
        ObjectInUse: writers could not be held for the moment it takes.
    """
    tables = await moving.tables_of(ctx, way.live)
    async with moving.reading(ctx, way.live, way.coming) as places:
        if way.online:
            found = await _compare_pair(ctx, way, places, tables)
        else:
            found = await _read_closed(places, tables)
    async with ctx.catalog_write() as db:
        await moves.record_comparison(db, way.move.id, found)
    if found.differences:
        raise ContentMismatch("; ".join(found.differences[:_SHOWN]))
    held = found.writers_held_ms
    waited = "" if held is None else f"; writers waited {held:.0f} ms"
    return Done(f"{_words(found)}{waited}")


async def compare_at_switch(ctx: StepContext, way: Way) -> Outcome:
    """What the new database held when its first client came is what the old one holds."""
    if way.move.compared_at_switch is not None:
        return Done(_words(way.move.compared_at_switch))
    session = ctx.held(way.coming.database.name, switching.PHOTOGRAPH)
    if session is None or not session.is_in_transaction():
        return Skip("the worker that photographed the switch is gone; compared before it")
    tables = await moving.tables_of(ctx, way.live)
    async with moving.reading(ctx, way.live, way.coming) as places:
        snapshots = (None, way.move.snapshot)
        found = await _read_both(places, tables, snapshots, way.move.fence_lsn or "")
    found = await _with_sequences(ctx, way, found)
    await switching.end_photograph(ctx, way)
    async with ctx.catalog_write() as db:
        await moves.record_comparison(db, way.move.id, found, at_switch=True)
    if found.differences:
        return Done(f"DIFFERENT: {'; '.join(found.differences[:_SHOWN])}")
    return Done(_words(found))


async def _compare_pair(
    ctx: StepContext, way: Way, places: Sequence[Place], tables: Sequence[Table]
) -> Comparison:
    marking = (await moving.inside(ctx, way.live), await moving.inside(ctx, way.coming))
    locking = await moving.inside(ctx, way.live, "locking")
    async with paired_snapshots((places[0], places[1]), locking, marking, tables) as pair:
        found = await _read_both(places, tables, (pair.source, pair.target), pair.lsn)
    return _with_hold(found, pair.held_ms)


async def _read_both(
    places: Sequence[Place],
    tables: Sequence[Table],
    snapshots: tuple[str | None, str | None],
    lsn: str,
) -> Comparison:
    """One side after the other: clients need the machine, too."""
    started = time.monotonic()
    sides: list[dict[str, TableContent]] = []
    for place, snapshot in zip(places, snapshots, strict=True):
        sides.append(await read_tables(place, tables, snapshot=snapshot, at_once=_AT_ONCE))
    return Comparison(
        lsn=lsn,
        at=clock.now(),
        tables=sides[0],
        seconds=round(time.monotonic() - started, 2),
        differences=unequal(sides[0], sides[1]),
    )


async def _read_closed(places: Sequence[Place], tables: Sequence[Table]) -> Comparison:
    """Nobody writes: rows and large objects are compared as they are."""
    found = await _read_both(places, tables, (None, None), "")
    here, there = [await read_large_objects(place) for place in places]
    if here == there:
        return found
    different = f"{here.rows} large objects on the source, {there.rows} or others there"
    return msgspec.structs.replace(found, differences=[*found.differences, different])


async def _with_sequences(ctx: StepContext, way: Way, found: Comparison) -> Comparison:
    """I-7: no sequence fell behind its column; one that was behind before is the tenant's own."""
    before, now = [
        await sequences_behind(await moving.inside(ctx, end), end.database.roles)
        for end in (way.live, way.coming)
    ]
    known = {_sequence(words) for words in before}
    behind = [words for words in now if _sequence(words) not in known]
    return msgspec.structs.replace(found, differences=[*found.differences, *behind])


def _sequence(words: str) -> str:
    return words.partition(" stands at ")[0]


def _with_hold(found: Comparison, held_ms: float) -> Comparison:
    return msgspec.structs.replace(found, writers_held_ms=held_ms)


def _words(found: Comparison) -> str:
    rows = sum(table.rows for table in found.tables.values())
    return f"{len(found.tables)} tables, {rows:,} rows equal at {found.lsn or 'rest'}"
