"""The switch: clients held, the live database fenced, the rest arrived, the catalog changed.

Until the catalog has changed everything goes back, from then on everything goes forward. What
keeps writers out is in Postgres; the pause at the poolers spares their clients errors.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from control_plane.adapters import (
    replication,
    sequences,
    subscriptions,
    tenant_database,
    tenant_roles,
)
from control_plane.adapters.comparison import export_snapshot
from control_plane.adapters.postgres_server import Connection, connect
from control_plane.adapters.schema_copy import Place
from control_plane.catalog import databases, moves, poolers, tenants
from control_plane.catalog.databases import Credential
from control_plane.catalog.moves import Switched
from control_plane.domain.errors import (
    CatalogUnavailable,
    LoginFailed,
    ObjectInUse,
    PoolerUnavailable,
    ServerRefused,
    ServerUnavailable,
    TenantryError,
    UnexpectedDatabaseError,
    WrongState,
)
from control_plane.router.barrier import Hold, hold_everywhere, resume_everywhere
from workers.engine.step import Done, Outcome, StepContext, Wait
from workers.steps import moving
from workers.steps.moving import End, Way

PHOTOGRAPH = "photograph"
_LOOK_SECONDS = 0.002
_ARRIVAL_MS = 150.0
_ARRIVAL_LOOKS = 3
_SESSION_DRAIN_SECONDS = 5.0
# Long enough for a successor to take everything back while clients still wait.
_SUCCESSOR_SECONDS = 8.0
_MOST_WAIT_SECONDS = 60.0
_OPEN_TRANSACTIONS = """
SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8
  FROM pg_stat_activity
 WHERE datname = current_database() AND usename = ANY ($1::text[])
   AND xact_start < clock_timestamp() - interval '1 s'
"""
# Whatever of this kind happens before the catalog has changed puts the switch off.
_PUT_OFF = (
    CatalogUnavailable,
    PoolerUnavailable,
    ObjectInUse,
    ServerUnavailable,
    ServerRefused,
    LoginFailed,
    UnexpectedDatabaseError,
    WrongState,
    TimeoutError,
)

Ends = tuple[Connection, Connection, Connection]


async def switch(ctx: StepContext, way: Way) -> Outcome:
    """The tenant is served by the other database, or by the one it has; never by none for long."""
    if way.switched:
        await _resume(ctx)
        return Done(_words(way))
    credentials = await credentials_of(ctx, way)
    await go_back(ctx, way, credentials)
    if way.online and (reason := await _not_now(ctx, way)) is not None:
        return Wait(1.0, reason)
    async with moving.reading(ctx, way.live) as (place,):
        try:
            attempt = _Attempt(ctx, way, await _ends(ctx, way), credentials)
            async with attempt.prepared(place):
                async with asyncio.timeout(way.move.pause_budget_ms / 1000):
                    done = await attempt.carry_out()
        except _PUT_OFF as error:
            return await _put_off(ctx, way, credentials, error)
        return await _commit(ctx, way, done, attempt)


async def go_back(ctx: StepContext, way: Way, credentials: Sequence[Credential]) -> None:
    """Only the live database lets the tenant in, and its clients go on; whatever was begun.

    The catalog is asked last: without it the poolers go on by themselves when the pause is over.
    """
    if not way.switched:
        live, coming = await moving.take_over(ctx, way.live), await _reached(ctx, way.coming)
        if coming is not None:
            await _close(coming, way.coming)
            await subscriptions.go_on(coming, way.link)
        await _open(live, way, credentials)
    await _resume(ctx)


async def _resume(ctx: StepContext) -> None:
    await resume_everywhere(
        ctx.ports.catalog, ctx.tenant_id, operation_id=ctx.operation.id, epoch=ctx.epoch
    )


async def _open(live: Connection, way: Way, credentials: Sequence[Credential]) -> None:
    """The live database says that it is the tenant's, and lets it in."""
    database = way.live.database
    await tenant_database.write_identity(live, way.tenant.id, database.generation, "primary")
    for credential in credentials:
        await tenant_roles.open_login(
            live, credential.login, credential.verifier, way.tenant.limits.login
        )


async def _reached(ctx: StepContext, end: End) -> Connection | None:
    """Inside the new database, if its server answers: one that does not lets nobody in."""
    try:
        return await moving.take_over(ctx, end)
    except (ServerUnavailable, ServerRefused):
        return None


async def _close(inside: Connection, end: End) -> None:
    roles = end.database.roles
    await tenant_roles.close_logins(inside, roles.logins)
    await tenant_roles.terminate_login_sessions(inside, roles.logins)


async def credentials_of(ctx: StepContext, way: Way) -> list[Credential]:
    """What the tenant logs in with, wherever it is served."""
    async with ctx.catalog_read() as db:
        held = await databases.credentials(db, way.live.database.role_set_id)
    return [credential for credential in held.values() if credential.state != "revoked"]


async def arrival_ms(ctx: StepContext, way: Way) -> float | None:
    """How long a change takes to the other side; ``None`` when more than a second."""
    live, coming = await moving.inside(ctx, way.live), await moving.inside(ctx, way.coming)
    await replication.require_healthy(live, coming, way.link)
    started = time.monotonic()
    marker = await replication.mark(live)
    while time.monotonic() - started < 1.0:
        if await replication.arrived(coming, marker):
            return (time.monotonic() - started) * 1000
        await coming.execute("SELECT pg_sleep($1)", _LOOK_SECONDS)
    return None


async def _not_now(ctx: StepContext, way: Way) -> str | None:
    """Why a switch begun now would keep clients waiting for too long."""
    if away := await _poolers_away(ctx):
        remedy = f"start it, or if it is gone for good: tenantry poolers remove {away[0]}"
        return f"pooler {away[0]} is away and cannot hold its clients; {remedy}"
    live = await moving.inside(ctx, way.live)
    oldest = await live.fetchval(_OPEN_TRANSACTIONS, list(way.live.database.roles.logins))
    if oldest is not None:
        return f"a transaction has been open for {oldest:.0f} s; the switch waits for it"
    for _ in range(_ARRIVAL_LOOKS):
        late = await arrival_ms(ctx, way)
        if late is None or late > max(_ARRIVAL_MS, way.move.pause_budget_ms / 10):
            return "changes do not arrive fast enough yet"
    return None


async def _poolers_away(ctx: StepContext) -> list[str]:
    async with ctx.ports.catalog.connection() as db:
        cell_id = await tenants.cell_id(db, ctx.tenant_id)
        return [one.name for one in await poolers.every(db, cell_id) if not one.alive]


async def _put_off(
    ctx: StepContext,
    way: Way,
    credentials: Sequence[Credential],
    error: TenantryError | TimeoutError,
) -> Outcome:
    reason = (
        error.message
        if isinstance(error, TenantryError)
        else f"the pause budget of {way.move.pause_budget_ms} ms was not enough"
    )
    await go_back(ctx, way, credentials)
    async with ctx.catalog_write() as db:
        attempts = await moves.put_off(db, way.move.id, reason)
    seconds = min(_MOST_WAIT_SECONDS, 2.0**attempts)
    return Wait(seconds, f"taken back, tries again: {reason}")


async def _commit(ctx: StepContext, way: Way, done: Switched, attempt: "_Attempt") -> Outcome:
    """The compare-and-set. When the catalog does not say what became of it, nobody guesses.

    Raises:
        CatalogUnavailable: it did not.
    """
    moving.reach(ctx, "switch_route.commit.before")
    done = msgspec.structs.replace(done, paused_ms=attempt.paused_ms())
    written = False
    try:
        async with ctx.catalog_write() as db:
            await moves.switch(db, way.move, ctx.operation.id, done, back=way.back)
            written = True
    except (WrongState, CatalogUnavailable) as error:
        if written:
            raise
        return await _put_off(ctx, way, attempt.credentials, error)
    moving.reach(ctx, "switch_route.commit.after")
    return Done(f"clients waited about {done.paused_ms:.0f} ms; {way.coming.server.name} serves")


class _Attempt:
    """One try: everything that can be had before the pause is had before it.

    Its connections are made once: a worker that wakes up after its lease finds them ended.
    """

    def __init__(
        self, ctx: StepContext, way: Way, ends: Ends, credentials: Sequence[Credential]
    ) -> None:
        self.credentials = credentials
        self._ctx = ctx
        self._way = way
        self._live, self._coming, self._photographer = ends
        self._started = 0.0
        self._reading: Connection | None = None
        self._snapshot: str | None = None
        self._names: list[str] = []

    def paused_ms(self) -> float:
        """How long clients have been held by now."""
        return round((time.monotonic() - self._started) * 1000, 1)

    @asynccontextmanager
    async def prepared(self, place: Place) -> AsyncIterator[None]:
        """What reads sequences is there for the block; who is in the session endpoint may leave."""
        await _end_transaction(self._photographer)
        self._reading = await connect(place.address, place.database, place.session)
        try:
            self._names = await sequences.sequence_names(self._reading)
            if self._way.online:
                await self._drain_sessions()
            yield
        finally:
            self._reading.terminate()

    async def carry_out(self) -> Switched:
        """From the pause to the moment before the catalog changes."""
        self._started = time.monotonic()
        if self._way.online:
            await self._hold()
        moving.reach(self._ctx, "switch_route.fence.before")
        await self._fence()
        moving.reach(self._ctx, "switch_route.fence.after")
        await _together(self._drain(), self._carry_sequences())
        fence_lsn = await self._live.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        begin_lsn = await self._coming.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        await _together(self._photograph(), self._admit())
        return Switched(str(fence_lsn), str(begin_lsn), self._snapshot, 0.0)

    async def _drain_sessions(self) -> None:
        ctx, seconds = self._ctx, _SESSION_DRAIN_SECONDS
        order = Hold(ctx.operation.id, ctx.epoch, seconds + 1, seconds, "sessions")
        try:
            await hold_everywhere(ctx.ports.catalog, ctx.tenant_id, order)
        except PoolerUnavailable:
            # Whoever stays is cut off; a pooler that is away is noticed next.
            return

    async def _hold(self) -> None:
        ctx, budget = self._ctx, self._way.move.pause_budget_ms / 1000
        successor = ctx.ports.settings.engine.lease_seconds + _SUCCESSOR_SECONDS
        order = Hold(ctx.operation.id, ctx.epoch, budget + successor, budget, "cut")
        await hold_everywhere(ctx.ports.catalog, ctx.tenant_id, order)

    async def _fence(self) -> None:
        """Nobody of the tenant writes to the live database any more, and it says so."""
        database = self._way.live.database
        await _close(self._live, self._way.live)
        await tenant_database.write_identity(
            self._live, self._way.tenant.id, database.generation, "previous"
        )

    async def _drain(self) -> None:
        if not self._way.online:
            return
        marker = await replication.mark(self._live)
        while not await replication.arrived(self._photographer, marker):
            await self._photographer.execute("SELECT pg_sleep($1)", _LOOK_SECONDS)
        # What somebody else writes behind the fence must not come back as a change of ours.
        await subscriptions.rest(self._photographer, self._way.link)

    async def _carry_sequences(self) -> None:
        if self._reading is not None:
            found = await sequences.read_sequences(self._reading, self._names)
            await sequences.set_sequences(self._coming, found)

    async def _photograph(self) -> None:
        self._snapshot = await export_snapshot(self._photographer)

    async def _admit(self) -> None:
        """The new database says whose it is, and lets the tenant in."""
        way = self._way
        # This commit waits for its WAL, hence for all that was applied before it.
        generation = max(way.live.database.generation + 1, way.coming.database.generation)
        await tenant_database.write_identity(self._coming, way.tenant.id, generation, "primary")
        for credential in self.credentials:
            await tenant_roles.open_login(
                self._coming, credential.login, credential.verifier, way.tenant.limits.login
            )


async def _ends(ctx: StepContext, way: Way) -> Ends:
    """Inside both databases, and what photographs the one to come."""
    return (
        await moving.inside(ctx, way.live),
        await moving.inside(ctx, way.coming),
        await moving.inside(ctx, way.coming, PHOTOGRAPH),
    )


async def end_photograph(ctx: StepContext, way: Way) -> None:
    """The session that keeps a snapshot of the new database keeps it no longer, and is there."""
    await _end_transaction(await moving.inside(ctx, way.coming, PHOTOGRAPH))


async def _end_transaction(session: Connection) -> None:
    if session.is_in_transaction():
        await session.execute("ROLLBACK")


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed


def _words(way: Way) -> str:
    waited = way.move.paused_ms
    return f"{way.coming.server.name} serves; clients waited about {waited or 0:.0f} ms"
