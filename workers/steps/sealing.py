"""The audit log of a database that will serve a tenant: sealed before anybody writes to it.

The first seal on a cluster holds writers up while it reads the log. Seals of a database that was
restored go on from where its backup ended, on a line of their own: what was anchored since then is
that of the database before it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from control_plane.adapters import tenant_audit
from control_plane.adapters.auditor_session import connect_as_auditor
from control_plane.adapters.postgres_server import Connection
from control_plane.catalog import upkeep
from control_plane.catalog.databases import Database
from control_plane.catalog.servers import Server
from control_plane.domain.errors import ObjectInUse
from control_plane.domain.names import RoleSet
from control_plane.services.audit_seals import seal_and_anchor
from workers.engine.step import StepContext
from workers.steps import restorable
from workers.steps.moving import End


async def begin_line(ctx: StepContext) -> None:
    """For a database that is to replace the tenant's: ``restore undo`` brings the old line back."""
    what = await restorable.begun(ctx)
    async with _auditing(ctx, what.server, what.scratch.name, what.roles) as auditor:
        if await tenant_audit.has_audit_log(auditor, what.roles):
            blocks = await tenant_audit.count_blocks(auditor)
            async with ctx.catalog_write() as db:
                await upkeep.begin_line(db, what.scratch, blocks)
            await tenant_audit.seal_all(auditor)


async def go_on(ctx: StepContext) -> None:
    """For a database that is the tenant's only one: a new line only if more was anchored."""
    what = await restorable.begun(ctx)
    async with _auditing(ctx, what.server, what.scratch.name, what.roles) as auditor:
        if await tenant_audit.has_audit_log(auditor, what.roles):
            await _follow(ctx, what.scratch, await tenant_audit.count_blocks(auditor))
            await tenant_audit.seal_all(auditor)


async def seal(ctx: StepContext, end: End) -> None:
    """What is settled in one database of a move is sealed.

    Raises:
        SchemaMismatch, ObjectInUse: see ``seal_and_anchor``.
    """
    database = end.database
    async with _auditing(ctx, end.server, database.name, database.roles) as auditor:
        await seal_and_anchor(ctx.ports, auditor, database)


async def after_switch(ctx: StepContext, end: End) -> None:
    """For a database that was moved into: soon after the switch there is little to seal.

    Where somebody writes for so long that he cannot be waited for, upkeep does it later.
    """
    try:
        await seal(ctx, end)
    except ObjectInUse as error:
        await ctx.tell(f"sealed later: {error.message}")


async def _follow(ctx: StepContext, scratch: Database, blocks: int) -> None:
    async with ctx.catalog_write() as db:
        chain = await upkeep.chain_of(db, ctx.tenant_id)
        if chain.last is not None and chain.last.block > blocks:
            await upkeep.begin_line(db, scratch, blocks)
            await upkeep.follow_line(db, scratch)


@asynccontextmanager
async def _auditing(
    ctx: StepContext, server: Server, database: str, roles: RoleSet
) -> AsyncIterator[Connection]:
    """The auditor's session in a database of this operation.

    Raises:
        LeaseLost: another worker owns the operation.
    """
    async with ctx.admin(server) as admin:
        auditor = await connect_as_auditor(
            admin, ctx.address(server), database, roles, ctx.session_name
        )
    try:
        # A successor ends what was there when it took over; whoever comes later is told here.
        async with ctx.catalog_write():
            pass
        yield auditor
    finally:
        auditor.terminate()
