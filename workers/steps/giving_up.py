"""A tenant that never came to be: slug and places go back, what exists is reclaimed later."""

from control_plane.catalog import databases, operations, routes, servers, tenants
from control_plane.catalog.pool import Connection
from control_plane.services import reclaiming
from workers.engine.step import StepContext


async def give_up_tenant(ctx: StepContext, db: Connection) -> None:
    """Take back what the request reserved for a tenant that is still being made."""
    tenant = await tenants.get(db, ctx.tenant_id)
    if tenant.state != "provisioning":
        return
    await tenants.change_state(db, ctx.tenant_id, expected="provisioning", wanted="deleted")
    await routes.leave_cell(db, await tenants.cell_id(db, ctx.tenant_id))
    # With the slug goes the alias: whoever asks for it next must find it free.
    route = await routes.find(db, ctx.tenant_id)
    if route is not None:
        await routes.touch(db, route, "withdrawn")
    database = await databases.find_primary(db, ctx.tenant_id)
    if database is not None:
        await servers.release(db, database.server_id)
        # Asked anew: what the context knows is how far earlier leases came, and before the first
        # step is done nobody has marked the database as this tenant's.
        operation = await operations.get(db, ctx.operation.id)
        begun = any(step.state in ("done", "skipped") for step in operation.steps)
        unclaimed = bool(operation.input.get("claimed")) and not begun
        await reclaiming.condemn(db, database, ctx.operation.actor, unclaimed=unclaimed)
