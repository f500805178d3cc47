"""The new database filled: an empty one, the schema, the rows of one snapshot, the indexes.

A copy lives as long as the session whose snapshot it reads: one that was interrupted begins anew,
with an empty database and another slot.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from control_plane.adapters import replication, subscriptions
from control_plane.adapters.large_objects import copy_large_objects
from control_plane.adapters.move_target import (
    create_target,
    ensure_marker,
    furnish_target,
    open_loader,
    settle_target,
)
from control_plane.adapters.pace import Pace
from control_plane.adapters.pg_programs import Programs
from control_plane.adapters.postgres_server import Connection, connect
from control_plane.adapters.schema_copy import (
    Archive,
    Place,
    archive,
    dump_schema,
    restore_schema,
)
from control_plane.adapters.scratch_database import loader_of
from control_plane.adapters.table_copy import TableCopy
from control_plane.adapters.tenant_database import write_identity
from control_plane.catalog import moves
from control_plane.catalog.moves import Copied
from control_plane.domain.errors import ReplicationBroken
from control_plane.domain.moves import Progress, SourceFacts, size_words
from workers.engine.step import Done, Outcome, StepContext
from workers.steps import databases as making
from workers.steps import moving
from workers.steps.moving import Way

_JOBS = 2
# Of what the server lets a slot keep; without a limit of its own, this much in bytes.
_SHARE_OF_LIMIT = 0.8
_MOST_RETAINED = 64 * 1024**3


async def copy(ctx: StepContext, way: Way) -> Outcome:
    """The new database holds everything that was committed at one moment."""
    if way.move.copied is not None:
        return Done(_words(way.move.copied))
    run = _Copy(ctx, way, await moving.facts_of(ctx, way.live))
    copied = await run.carry_out()
    async with ctx.catalog_write() as db:
        await moves.record_copied(db, way.move.id, copied)
    return Done(_words(copied))


class _Copy:
    """One attempt, from an empty database to the last index."""

    def __init__(self, ctx: StepContext, way: Way, facts: SourceFacts) -> None:
        self._ctx = ctx
        self._way = way
        self._facts = facts
        self._programs = Programs(ctx.ports.settings.backup.postgres_programs)

    async def carry_out(self) -> Copied:
        ctx, way = self._ctx, self._way
        into, made = await self._empty()
        majors = (self._facts.major, way.coming.server.version_num // 10_000)
        async with moving.reading(ctx, way.live) as (source,):
            with archive(*majors) as held:
                copied = await self._fill(source, into, held, made)
        inside = await moving.inside(ctx, way.coming)
        await settle_target(inside, way.coming.database.name, way.coming.database.roles)
        await write_identity(inside, way.tenant.id, way.live.database.generation + 1, "scratch")
        return copied

    async def _empty(self) -> tuple[Place, frozenset[str]]:
        ctx, way = self._ctx, self._way
        coming, roles = way.coming, way.coming.database.roles
        loader = loader_of(coming.database.name)
        async with ctx.admin(way.live.server) as admin:
            await replication.drop_slot(admin, way.link)
        await making.require_unserved(ctx, coming.server, coming.database.name)
        await _forget_subscription(ctx, way)
        async with ctx.admin(coming.server) as admin:
            await create_target(
                admin,
                coming.database.name,
                self._facts.locale,
                roles,
                coming.server.system_identifier,
            )
            password = await open_loader(admin, coming.database.name)
        inside = await moving.inside(ctx, coming)
        made = await furnish_target(inside, roles, self._facts.extensions)
        await ensure_marker(inside, roles)
        address = ctx.address(coming.server).for_login(loader, password)
        return Place(address, coming.database.name, ctx.session_name), made

    async def _fill(
        self, source: Place, into: Place, held: Archive, made: frozenset[str]
    ) -> Copied:
        started = time.monotonic()
        async with self._snapshot() as snapshot:
            await dump_schema(self._programs, source, snapshot, held)
            await restore_schema(self._programs, into, held, "pre-data", without_schemas=made)
            moving.reach(self._ctx, "copy_data.rows.before")
            binary = held.source_major == held.target_major
            async with self._paced() as pace:
                rows = await TableCopy(source, into, snapshot, binary=binary, pace=pace).run(
                    self._facts.tables, jobs=_JOBS, told=self._tell
                )
        moving.reach(self._ctx, "copy_data.rows.after")
        copied = time.monotonic()
        await self._ctx.tell(f"{rows:,} rows copied; making indexes")
        if not self._way.online:
            await self._copy_large_objects(source)
        await restore_schema(self._programs, into, held, "post-data", jobs=_JOBS)
        return Copied(
            rows=rows,
            tables=len(self._facts.tables),
            copy_seconds=round(copied - started, 2),
            index_seconds=round(time.monotonic() - copied, 2),
            rested_seconds=pace.rested,
        )

    @asynccontextmanager
    async def _paced(self) -> AsyncIterator[Pace]:
        pace = Pace()
        if not self._way.online:
            yield pace
            return
        async with pace.kept(await moving.inside(self._ctx, self._way.live, "pace")):
            yield pace

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[str]:
        ctx, live = self._ctx, self._way.live
        if self._way.online:
            side = Place(ctx.address(live.server), live.database.name, ctx.session_name)
            async with replication.exported_slot(side, self._way.link) as exported:
                yield exported.snapshot
            return
        async with replication.exported_snapshot(
            await moving.inside(ctx, live, "snapshot")
        ) as snapshot:
            yield snapshot

    async def _copy_large_objects(self, source: Place) -> None:
        reading = await connect(source.address, source.database, source.session)
        try:
            target = await moving.inside(self._ctx, self._way.coming)
            await copy_large_objects(reading, target)
        finally:
            reading.terminate()

    async def _tell(self, progress: Progress) -> None:
        """Say how far it is; give up before the source's disk is full."""
        kept = 0
        if self._way.online:
            kept = await guard_wal(self._ctx, self._way, self._facts)
        await self._ctx.tell(msgspec.structs.replace(progress, retained=kept).words())


async def guard_wal(ctx: StepContext, way: Way, facts: SourceFacts) -> int:
    """How much WAL the live server keeps for the move.

    Raises:
        ReplicationBroken: so much that the move is given up for the others on that server.
    """
    inside: Connection = await moving.inside(ctx, way.live)
    kept = await replication.retained(inside, way.link)
    most = facts.slot_wal_limit * _SHARE_OF_LIMIT if facts.slot_wal_limit > 0 else _MOST_RETAINED
    if kept > most:
        raise ReplicationBroken(
            f"{way.live.server.name} keeps {size_words(kept)} of WAL for the move, more than "
            f"{size_words(most)}: given up before its disk is full"
        )
    return kept


async def _forget_subscription(ctx: StepContext, way: Way) -> None:
    """A database that a subscription still feeds cannot be dropped."""
    async with ctx.admin(way.coming.server) as admin:
        there = await replication.database_exists(admin, way.coming.database.name)
    if there:
        await subscriptions.unsubscribe(await moving.inside(ctx, way.coming), way.link)
        ctx.leave_database(way.coming.database.name)


def _words(copied: Copied) -> str:
    rested = f", rested {copied.rested_seconds:.1f} s for others" if copied.rested_seconds else ""
    return (
        f"{copied.rows:,} rows of {copied.tables} tables in {copied.copy_seconds:.1f} s, "
        f"indexes in {copied.index_seconds:.1f} s{rested}"
    )
