"""Cutting a tenant off everywhere, and letting in again one that something failed to end.

The cut that counts is in Postgres: logins closed, then their sessions ended. The poolers only
follow, so that an agent that is away cannot keep anybody connected.
"""

from control_plane.adapters import clock, tenant_roles
from control_plane.catalog import databases, operations, routes, tenants
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext
from workers.steps import routes as routing

_NO_DATABASE = "it has no database"


async def withdraw_route(ctx: StepContext) -> Outcome:
    """The agents are told to serve the tenant no more."""
    await routing.withdraw(ctx)
    return Done()


async def revoke_logins(ctx: StepContext) -> Outcome:
    """Neither login of the tenant may log in."""
    database = await _database(ctx)
    if database is None:
        return Skip(_NO_DATABASE)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        for login in database.roles.logins:
            await tenant_roles.close_login(connection, login)
    return Done()


async def terminate_sessions(ctx: StepContext) -> Outcome:
    """No session of the tenant is left on the server."""
    database = await _database(ctx)
    if database is None:
        return Skip(_NO_DATABASE)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        ended = await tenant_roles.terminate_login_sessions(connection, database.roles.logins)
    return Done(f"{ended} sessions ended")


async def wait_poolers(ctx: StepContext) -> Outcome:
    """No living pooler serves the tenant."""
    return await routing.served(ctx)


async def verify_closed(ctx: StepContext) -> Outcome:
    """Every login is refused at every pooler and at the server."""
    if await _database(ctx) is None:
        return Skip(_NO_DATABASE)
    return await routing.verify_closed(ctx)


async def let_in_again(ctx: StepContext, db: Connection) -> None:
    """An operation that had cut an active tenant off ends without its purpose; for ``abandon``.

    The tenant was open before and nothing of it is gone: a ``resume`` opens it.
    """
    tenant = await tenants.get(db, ctx.tenant_id)
    route = await routes.find(db, ctx.tenant_id)
    if tenant.state != "active" or route is None or route.state == "published":
        return
    await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["resume"],
            subject=tenant.slug,
            actor=ctx.operation.actor,
            tenant_id=tenant.id,
        ),
    )


async def _database(ctx: StepContext) -> Database | None:
    async with ctx.catalog_read() as db:
        return await databases.find_primary(db, ctx.tenant_id)
