"""Both ends of a move, as the steps of its verbs see them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from control_plane.adapters import replication
from control_plane.adapters.administrator import abilities
from control_plane.adapters.backup_login import close_backup_login, open_backup_login
from control_plane.adapters.move_survey import read_source
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.schema_copy import Place
from control_plane.catalog import databases, moves, tenants
from control_plane.catalog.databases import Database
from control_plane.catalog.moves import Move
from control_plane.catalog.servers import Server
from control_plane.domain.administrators import Abilities
from control_plane.domain.errors import NotFound
from control_plane.domain.moves import Link, SourceFacts, Table
from control_plane.domain.tenants import Tenant
from workers.engine import failpoints
from workers.engine.step import StepContext


class End(msgspec.Struct, frozen=True):
    """One of the two databases, and its server."""

    database: Database
    server: Server


class Way(msgspec.Struct, frozen=True):
    """A move with both its ends; ``live`` serves the tenant until the switch, then ``coming`` does.

    On the way back the ends change their parts.
    """

    move: Move
    tenant: Tenant
    live: End
    coming: End
    back: bool = False

    @property
    def link(self) -> Link:
        """What carries changes from ``live`` to ``coming``."""
        return self.move.way_back if self.back else self.move.link

    @property
    def online(self) -> bool:
        return self.move.method == "online"

    @property
    def switched(self) -> bool:
        """Whether the compare-and-set is behind us."""
        return self.coming.database.purpose == "primary"


async def way_of(ctx: StepContext) -> Way:
    """The move that this operation began."""
    async with ctx.catalog_read() as db:
        move = await moves.get(db, ctx.operation.id)
    return await _both_ends(ctx, move, back=False)


async def way_back_of(ctx: StepContext) -> Way:
    """The move of this tenant that can be gone back.

    Raises:
        NotFound: there is none.
    """
    async with ctx.catalog_read() as db:
        move = await moves.open_one(db, ctx.tenant_id)
    if move is None:
        raise NotFound(f"{ctx.operation.subject} has no move to go back from")
    return await _both_ends(ctx, move, back=True)


async def open_way(ctx: StepContext) -> Way:
    """The tenant's open move; ``live`` is the database that serves the tenant now.

    Raises:
        NotFound: it has none.
    """
    async with ctx.catalog_read() as db:
        move = await moves.open_one(db, ctx.tenant_id)
        serving = await databases.primary(db, ctx.tenant_id)
    if move is None:
        raise NotFound(f"{ctx.operation.subject} has no open move")
    return await _both_ends(ctx, move, back=serving.id == move.target_database_id)


async def _both_ends(ctx: StepContext, move: Move, *, back: bool) -> Way:
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, move.tenant_id)
        source = await databases.get(db, move.source_database_id)
        target = await databases.get(db, move.target_database_id)
    ends = (
        End(source, await ctx.server(source.server_id)),
        End(target, await ctx.server(target.server_id)),
    )
    live, coming = reversed(ends) if back else ends
    return Way(move=move, tenant=tenant, live=live, coming=coming, back=back)


async def inside(ctx: StepContext, end: End, use: str = "") -> Connection:
    """An administrator's connection inside this end's database."""
    return await ctx.inside(end.server, end.database.name, use)


async def facts_of(ctx: StepContext, end: End) -> SourceFacts:
    """What is in this end's database now."""
    return await read_source(await inside(ctx, end))


async def may_of(ctx: StepContext, end: End) -> Abilities:
    """What the administrator of this end's server may do; whether it streams is tried."""
    async with ctx.admin(end.server) as admin:
        may = await abilities(admin)
    if may.lends_streaming and not may.replication:
        place = Place(ctx.address(end.server), "postgres", ctx.session_name)
        streams = await replication.may_stream(place)
        may = msgspec.structs.replace(may, lends_streaming=streams)
    return may


async def tables_of(ctx: StepContext, end: End) -> tuple[Table, ...]:
    return (await facts_of(ctx, end)).tables


@asynccontextmanager
async def reading(ctx: StepContext, *ends: End) -> AsyncIterator[tuple[Place, ...]]:
    """The databases as the tenant's backup role sees them, for the block."""
    async with AsyncExitStack() as opened:
        yield tuple([await opened.enter_async_context(_read_by_backup(ctx, end)) for end in ends])


@asynccontextmanager
async def _read_by_backup(ctx: StepContext, end: End) -> AsyncIterator[Place]:
    roles = end.database.roles
    # Whoever went before has the login until its sessions end.
    async with ctx.admin(end.server):
        pass
    # A session of its own: it has the login to itself for as long as it lasts.
    admin = await ctx.inside(end.server, "postgres", f"backup login on {end.server.name}")
    password = await open_backup_login(admin, roles)
    try:
        address = ctx.address(end.server).for_login(roles.backup, password)
        yield Place(address, end.database.name, ctx.session_name)
    finally:
        if not admin.is_closed():
            await close_backup_login(admin, roles)


async def take_over(ctx: StepContext, end: End) -> Connection:
    """``inside``, once nobody who worked on this operation before has a session on the server."""
    async with ctx.admin(end.server):
        pass
    return await inside(ctx, end)


def reach(ctx: StepContext, place: str) -> None:
    """A crash point inside a step, for tests: ``<step>.<place>.<before|after>``."""
    directory = ctx.ports.settings.engine.failpoint_dir
    failpoints.reach(directory, f"{ctx.operation.kind}.{place}", ctx.operation.subject)
