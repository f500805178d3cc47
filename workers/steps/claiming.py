"""A restored database becomes a tenant's own, where the tenant had none."""

from control_plane.adapters import tenant_database
from control_plane.catalog import databases, replacements, routes
from workers.engine.step import Done, Outcome, StepContext
from workers.steps import restorable


async def claim(ctx: StepContext) -> Outcome:
    """The restored database is the tenant's primary, says so, and only its roles may enter it."""
    what = await restorable.begun(ctx)
    async with ctx.catalog_write() as db:
        route = await routes.find(db, ctx.tenant_id)
        known = max(what.manifest.generation, route.generation if route else 0)
        await replacements.become_primary(db, what.scratch.id, known + 1)
        database = await databases.primary(db, ctx.tenant_id)
    async with ctx.admin(what.server) as admin:
        await tenant_database.open_to_roles(admin, database.name, database.roles)
    inside = await ctx.inside(what.server, database.name)
    await tenant_database.write_identity(inside, ctx.tenant_id, database.generation, "primary")
    return Done(f"database {database.name} on {what.server.name}")
