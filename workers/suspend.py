"""Suspend: cut a tenant off everywhere within seconds, and keep its data.

The cut that counts is in Postgres: logins closed, then their sessions ended. The poolers only
follow, so that an agent that is away cannot keep anybody connected.
"""

from control_plane.adapters import tenant_roles
from control_plane.catalog import databases, tenants
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import routes as routing


async def withdraw_route(ctx: StepContext) -> Outcome:
    """The agents are told to serve the tenant no more."""
    await routing.withdraw(ctx)
    return Done()


async def revoke_logins(ctx: StepContext) -> Outcome:
    """Neither login of the tenant may log in."""
    async with ctx.catalog_read() as db:
        database = await databases.primary(db, ctx.tenant_id)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        for login in database.roles.logins:
            await tenant_roles.close_login(connection, login)
    return Done()


async def terminate_sessions(ctx: StepContext) -> Outcome:
    """No session of the tenant is left on the server."""
    async with ctx.catalog_read() as db:
        database = await databases.primary(db, ctx.tenant_id)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        ended = await tenant_roles.terminate_login_sessions(connection, database.roles.logins)
    return Done(f"{ended} sessions ended")


async def wait_poolers(ctx: StepContext) -> Outcome:
    """No living pooler serves the tenant."""
    return await routing.served(ctx)


async def verify_closed(ctx: StepContext) -> Outcome:
    """Every login is refused at every pooler and at the server."""
    return await routing.verify_closed(ctx)


async def mark_suspended(ctx: StepContext) -> Outcome:
    """The tenant is suspended."""
    async with ctx.catalog_write() as db:
        await tenants.change_state(db, ctx.tenant_id, expected="active", wanted="suspended")
    return Done()


VERB = Verb(
    plan=PLANS["suspend"],
    steps=(
        withdraw_route,
        revoke_logins,
        terminate_sessions,
        wait_poolers,
        verify_closed,
        mark_suspended,
    ),
)
