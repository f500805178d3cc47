"""Migrating many tenants at once: the same operations as one by one, in batches.

Of every server a few tenants are in the works at a time. Each has its own ``migrate`` operation,
written and ended together with others of its server; whatever a dead worker leaves of them the
engine finishes one by one, for they are operations like any other.
"""

import asyncio
import time
from uuid import UUID

from control_plane.catalog import audit, operations, rollout_batches, rollouts, servers
from control_plane.catalog.audit import Entry
from control_plane.catalog.pool import Connection
from control_plane.catalog.rollout_batches import Begun, Ended
from control_plane.domain.errors import SchemaMismatch
from control_plane.domain.names import show
from control_plane.domain.rollouts import Rollout, WaveCounts, halt_reason, seconds_left
from workers.engine import failpoints
from workers.engine.step import StepContext
from workers.steps import migrating
from workers.steps.lane import Batch, Golden, Lane
from workers.steps.migrating import Script

_SLICE_SECONDS = 10.0
_RECORD_SECONDS = 0.04
_LOOK_SECONDS = 0.5
# So many times what runs at once is begun, so that nothing waits for the catalog.
_MOST_AHEAD, _LEAST_AHEAD = 4, 2
_LATER_SECONDS = 0.5

Work = asyncio.Task[tuple[Lane, Batch, Begun, Ended]]


class Fleet:
    """One slice of a rollout in this worker; nothing of it outlives ``run``."""

    def __init__(self, ctx: StepContext, rollout: Rollout, script: Script) -> None:
        self._ctx = ctx
        self._rollout = rollout
        self._script = script
        self._wave = rollout.wave
        self._waves: list[WaveCounts] = []
        self._waiting: dict[UUID, int] = {}
        self._lanes: dict[UUID, Lane] = {}
        self._slots = asyncio.Semaphore(rollout.options.max_parallel)
        self._works: dict[Work, tuple[UUID, UUID]] = {}
        self._may_begin = True
        self._began_at = time.monotonic()
        self._looked_at = 0.0
        self._done = 0

    async def run(self, last_wave: int | None) -> None:
        """Migrate for about 10 seconds, up to the end of ``last_wave``; waves follow each other.

        It ends earlier when nothing can be begun: all is done, halted, or in other hands.
        """
        try:
            await self._look(0)
            while await self._enter_wave(last_wave):
                await self._migrate_wave()
                await self._look(0)
        finally:
            for work in self._works:
                work.cancel()
            for lane in self._lanes.values():
                lane.leave()

    async def _enter_wave(self, last_wave: int | None) -> bool:
        """Go on to the first wave that is not over, when there is something to begin in it."""
        if not self._goes_on():
            return False
        wave = next((counts.wave for counts in self._waves if not counts.over), None)
        if wave is None or (last_wave is not None and wave > last_wave):
            return False
        if wave != self._wave:
            self._wave = wave
            for lane in self._lanes.values():
                lane.begin_wave()
            async with self._ctx.catalog_write() as db:
                await rollouts.enter_wave(db, self._rollout.id, wave)
            await self._look(0)
        return bool(await self._fill())

    async def _migrate_wave(self) -> None:
        while self._works:
            await asyncio.wait(self._works, timeout=_RECORD_SECONDS)
            await self._settle()
            await self._look(_LOOK_SECONDS)
            if self._goes_on():
                await self._fill()

    def _goes_on(self) -> bool:
        return self._may_begin and time.monotonic() - self._began_at < _SLICE_SECONDS

    async def _fill(self) -> int:
        """Fill every server's lane that runs low; how many tenants are in the works then."""
        options = self._rollout.options
        for server_id, others in list(self._waiting.items()):
            ours = sum(1 for place, _ in self._works.values() if place == server_id)
            if ours > options.per_server * _LEAST_AHEAD:
                continue
            room = options.per_server * _MOST_AHEAD - ours - others
            room = min(room, options.max_parallel * _MOST_AHEAD - len(self._works))
            if room > 0 and await self._begin_on(server_id, room) < room:
                del self._waiting[server_id]
        return len(self._works)

    async def _begin_on(self, server_id: UUID, room: int) -> int:
        lane = self._lanes.get(server_id) or await self._open_lane(server_id)
        batch, ended = await lane.begin(self._wave, room)
        if ended:
            await self._record(ended)
        if batch is None:
            return 0
        for one in batch.begun:
            work = asyncio.create_task(self._work(lane, batch, one))
            self._works[work] = server_id, one.operation_id
        return len(batch.begun)

    async def _open_lane(self, server_id: UUID) -> Lane:
        async with self._ctx.catalog_read() as db:
            server = await servers.get(db, server_id)
            reading = await migrating.golden(db, self._script, server)
            marks = await migrating.marks(db, self._script, server)
        if reading is None or self._script.target not in marks:
            raise SchemaMismatch(
                f"what template {self._script.template} makes at {self._script.target} was not "
                f"recorded on {server.name}; is it what its files say now?"
            )
        golden = Golden(reading, marks)
        lane = Lane(self._ctx, self._rollout, self._script, server, golden)
        self._lanes[server_id] = lane
        return lane

    async def _work(self, lane: Lane, batch: Batch, one: Begun) -> tuple[Lane, Batch, Begun, Ended]:
        async with lane.slots, self._slots:
            if not self._may_begin:  # halted or paused while it waited for its turn
                return lane, batch, one, Ended(one.operation_id, "back")
            ended = await lane.migrate(batch, one, thorough=self._wave == 0)
        return lane, batch, one, ended

    async def _settle(self) -> None:
        """Record what has ended since the last time, all in one transaction."""
        finished = [work for work in self._works if work.done()]
        if not finished:
            return
        for work in finished:
            del self._works[work]
        results = [work.result() for work in finished]
        self._reach("record_revision.before", [one for _, _, one, _ in results])
        await self._record([ended for *_, ended in results])
        self._reach("record_revision.after", [one for _, _, one, _ in results])
        for lane, batch, one, ended in results:
            await lane.release(batch, one, ended)

    async def _record(self, ended: list[Ended]) -> None:
        self._done += sum(1 for each in ended if each.outcome == "done")
        async with self._ctx.catalog_write() as db:
            await rollout_batches.settle(
                db, self._ctx.operation.id, ended, self._script.target, _LATER_SECONDS
            )
        if any(each.outcome == "failed" for each in ended):
            self._looked_at = 0.0

    async def _look(self, every: float) -> None:
        """See whether to go on, keep the leases alive and tell how far it has come."""
        if time.monotonic() - self._looked_at < every:
            return
        self._looked_at = time.monotonic()
        async with self._ctx.catalog_write() as db:
            await rollout_batches.extend_leases(
                db, self._ctx.operation.id, [own for _, own in self._works.values()]
            )
            await rollout_batches.reap(db, self._rollout.id, self._rollout.to_revision)
            self._waves = await rollouts.counts(db, self._rollout.id)
            self._may_begin = await self._stays_running(db, self._waves)
            running = await rollout_batches.servers_waiting(db, self._rollout.id, self._wave)
            await operations.tell(db, self._ctx.operation.id, self._progress(self._waves))
        places = [place for place, _ in self._works.values()]
        self._waiting = {key: count - places.count(key) for key, count in running.items()}

    async def _stays_running(self, db: Connection, waves: list[WaveCounts]) -> bool:
        rollout = self._rollout
        if await rollouts.state_of(db, rollout.id) != "running":
            return False
        reasons = (halt_reason(counts, rollout.options) for counts in waves)
        reason = next((words for words in reasons if words), None)
        if reason is not None:
            await rollouts.change_state(
                db, rollout.id, expected=("running",), wanted="halted", reason=reason
            )
            facts: dict[str, object] = {"reason": reason}
            entry = Entry("rollout.halt", show("ro", rollout.id), outcome="failed", facts=facts)
            await audit.record_system(db, entry)
        return reason is None

    def _progress(self, waves: list[WaveCounts]) -> str:
        done, failed = sum(w.done for w in waves), sum(w.failed for w in waves)
        left = sum(w.waiting + w.running for w in waves)
        total = sum(w.size for w in waves)
        words = f"{done} of {total} tenants" + (f", {failed} failed" if failed else "")
        eta = seconds_left(self._done, left, time.monotonic() - self._began_at)
        return f"{words}, about {eta:.0f} s left" if eta is not None and left else words

    def _reach(self, boundary: str, those: list[Begun]) -> None:
        directory = self._ctx.ports.settings.engine.failpoint_dir
        for one in those:
            failpoints.reach(directory, f"migrate.{boundary}", one.slug)
