"""Resume: let a suspended tenant in again, with the credentials it had."""

from control_plane.catalog import databases, tenants
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import databases as making
from workers.steps import routes as routing


async def restore_logins(ctx: StepContext) -> Outcome:
    """The tenant's logins are open again."""
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        database = await databases.primary(db, ctx.tenant_id)
    await making.open_logins(ctx, database, tenant.limits.login)
    return Done()


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler serves the tenant again."""
    return await routing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler."""
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, ctx.tenant_id, "active")
    return await routing.verify_works(ctx, credential)


async def mark_active(ctx: StepContext) -> Outcome:
    """The tenant is active."""
    async with ctx.catalog_write() as db:
        await tenants.change_state(db, ctx.tenant_id, expected="suspended", wanted="active")
    return Done()


VERB = Verb(plan=PLANS["resume"], steps=(restore_logins, publish_route, verify_login, mark_active))
