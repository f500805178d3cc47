"""Reclaim: drop a condemned database and its roles, in the order that cannot fail half-way."""

from control_plane.adapters import scratch_database, tenant_database, tenant_roles
from control_plane.catalog import databases, poolers, routes
from control_plane.catalog.databases import Database
from control_plane.domain.names import RoleSet
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import databases as making

_GONE = "already gone"


async def withdraw_route(ctx: StepContext) -> Outcome:
    """No route leads to the database."""
    async with ctx.catalog_write() as db:
        route = await routes.leading_to(db, ctx.database_id)
        if route is None or route.state == "withdrawn":
            return Skip("no route leads there")
        await routes.touch(db, route, "withdrawn")
    return Done(route.alias)


async def wait_poolers(ctx: StepContext) -> Outcome:
    """No living pooler serves the database."""
    async with ctx.catalog_read() as db:
        route = await routes.leading_to(db, ctx.database_id)
        if route is None:
            return Skip("no route led there")
        behind = await poolers.behind(db, route.cell_id, route.version)
    late = [pooler.name for pooler in behind if pooler.alive]
    return Wait(0.1, f"waiting for {', '.join(late)}") if late else Done()


async def drop_database(ctx: StepContext) -> Outcome:
    """The database is gone from its server."""
    database = await _condemned(ctx)
    if database is None:
        return Skip(_GONE)
    if await _is_somebodys(ctx, database):
        return Skip(f"{database.name} says that it is a tenant's; it stays there")
    server = await ctx.server(database.server_id)
    async with ctx.admin(server) as connection:
        # Nothing but a scratch database has a loader; of any other there is none to drop.
        loader = scratch_database.loader_of(database.name)
        await scratch_database.drop_scratch(
            connection, database.name, loader, server.system_identifier
        )
    return Done(database.name)


async def drop_roles(ctx: StepContext) -> Outcome:
    """The roles are gone from the server, unless another database there still needs them."""
    database = await _condemned(ctx)
    if database is None:
        return Skip(_GONE)
    if await _is_somebodys(ctx, database):
        return Skip("they stay with the database")
    # A restore for a new tenant may have ended between the roles of the old one and its own.
    candidates = {database.role_set_id, database.tenant_id or database.role_set_id}
    async with ctx.catalog_read() as db:
        needed = await databases.role_sets_beside(db, database)
    unused = [RoleSet(key) for key in sorted(candidates - needed)]
    server = await ctx.server(database.server_id)
    async with ctx.admin(server) as connection:
        for roles in unused:
            await tenant_roles.drop_role_set(connection, roles, server.system_identifier)
    if not unused:
        return Skip("another database of the tenant uses the roles")
    return Done(", ".join(f"roles {roles.prefix}_*" for roles in unused))


async def forget_database(ctx: StepContext) -> Outcome:
    """The catalog no longer expects the database."""
    async with ctx.catalog_write() as db:
        database = await databases.find(db, ctx.database_id)
        if database is None:
            return Skip(_GONE)
        await databases.forget(db, database)
    return Done()


async def _is_somebodys(ctx: StepContext, database: Database) -> bool:
    """Whether it is a tenant's, which the catalog does not know any more."""
    server = await ctx.server(database.server_id)
    if ctx.operation.input.get("unserved"):
        return await making.serves(ctx, server, database.name)
    if not ctx.operation.input.get("unclaimed"):
        return False
    async with ctx.admin(server) as connection:
        if not await tenant_database.is_ours(connection, database.name):
            return False
    return await making.is_somebodys(ctx, database)


async def _condemned(ctx: StepContext) -> Database | None:
    async with ctx.catalog_read() as db:
        database = await databases.find(db, ctx.database_id)
    if database is not None and database.purpose != "condemned":
        raise TypeError(f"{database.name} is {database.purpose}, not condemned")
    return database


VERB = Verb(
    plan=PLANS["reclaim"],
    steps=(withdraw_route, wait_poolers, drop_database, drop_roles, forget_database),
)
