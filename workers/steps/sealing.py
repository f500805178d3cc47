"""The audit log of a database that will serve a tenant: sealed before anybody writes to it.

The first seal on a cluster holds writers up while it reads the log. Seals of a database that was
restored go on from where its backup ended, on a line of their own: what was anchored since then is
that of the database before it.
"""

from control_plane.adapters import tenant_audit
from control_plane.adapters.postgres_server import Connection
from control_plane.catalog import upkeep
from control_plane.catalog.databases import Database
from control_plane.domain.errors import ObjectInUse
from control_plane.services.audit_seals import seal_and_anchor
from workers.engine.step import StepContext
from workers.steps import restorable


async def begin_line(ctx: StepContext) -> None:
    """For a database that is to replace the tenant's: ``restore undo`` brings the old line back."""
    what = await restorable.begun(ctx)
    inside = await ctx.inside(what.server, what.scratch.name)
    if await tenant_audit.has_audit_log(inside, what.roles):
        blocks = await tenant_audit.count_blocks(inside)
        async with ctx.catalog_write() as db:
            await upkeep.begin_line(db, what.scratch, blocks)
        await tenant_audit.seal_all(inside)


async def go_on(ctx: StepContext) -> None:
    """For a database that is the tenant's only one: a new line only if more was anchored."""
    what = await restorable.begun(ctx)
    inside = await ctx.inside(what.server, what.scratch.name)
    if await tenant_audit.has_audit_log(inside, what.roles):
        blocks = await tenant_audit.count_blocks(inside)
        async with ctx.catalog_write() as db:
            chain = await upkeep.chain_of(db, ctx.tenant_id)
            if chain.last is not None and chain.last.block > blocks:
                await upkeep.begin_line(db, what.scratch, blocks)
                await upkeep.follow_line(db, what.scratch)
        await tenant_audit.seal_all(inside)


async def after_switch(ctx: StepContext, inside: Connection, database: Database) -> None:
    """For a database that was moved into: soon after the switch there is little to seal.

    Where somebody writes for so long that he cannot be waited for, upkeep does it later.
    """
    try:
        await seal_and_anchor(ctx.ports, inside, database)
    except ObjectInUse as error:
        await ctx.tell(f"sealed later: {error.message}")
