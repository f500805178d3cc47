"""One database in the place of another: clients held off, the catalog switched, clients let in.

What keeps clients out is in Postgres. The pause at the poolers only spares them errors, and where
it cannot be had they see some.
"""

from control_plane.adapters import tenant_database, tenant_roles
from control_plane.catalog import databases, replacements, tenants
from control_plane.catalog.databases import Database
from control_plane.domain.errors import NotFound, PoolerUnavailable, ServerUnavailable
from control_plane.domain.tenants import Tenant
from control_plane.router.barrier import pause_everywhere
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, Skip, StepContext
from workers.steps import databases as making
from workers.steps import restorable
from workers.steps import routes as routing

_PAUSE_SECONDS = 30.0
_ANSWER_SECONDS = 2.0


async def fence(ctx: StepContext) -> Outcome:
    """Nobody of the tenant is in its database, nor gets there; poolers hold its clients."""
    held = await _pause(ctx)
    async with ctx.catalog_read() as db:
        live = await databases.primary(db, ctx.tenant_id)
    try:
        async with ctx.admin(await ctx.server(live.server_id)) as admin:
            for login in live.roles.logins:
                await tenant_roles.close_login(admin, login)
            ended = await tenant_roles.terminate_login_sessions(admin, live.roles.logins)
    except ServerUnavailable:
        if not _is_lost(ctx):
            raise
        return Skip("the server is lost")
    return Done(f"{ended} sessions ended; {held}")


async def switch(ctx: StepContext, shown: str) -> Outcome:
    """The coming database is the tenant's, one generation later; the other one is kept a while.

    ``shown`` is the coming one's ``db_`` id, fixed by the request: this may run twice.
    """
    coming_id = restorable.database_id(shown)
    keep_days = ctx.ports.settings.backup.undo_days
    async with ctx.catalog_write() as db:
        live = await databases.primary(db, ctx.tenant_id)
        if live.id != coming_id:
            coming = await databases.get(db, coming_id)
            kept = await replacements.previous(db, ctx.tenant_id)
            if kept is not None and kept.id != coming_id:
                await reclaiming.condemn(db, kept, ctx.operation.actor)
            await replacements.swap(db, live, coming, keep_days=keep_days)
    await _tell_databases(ctx)
    return Done(f"the previous database is kept for {keep_days:g} days")


async def let_in(ctx: StepContext) -> Outcome:
    """The tenant's logins are open on the server of its database, unless it is suspended."""
    tenant, _ = await _now(ctx)
    if tenant.state != "active":
        return Skip(f"the tenant is {tenant.state}")
    return await open_logins(ctx)


async def open_logins(ctx: StepContext) -> Outcome:
    """The tenant's logins are open on the server of its database, within its tier's limits."""
    tenant, database = await _now(ctx)
    await making.open_logins(ctx, database, tenant.limits.login)
    return Done()


async def publish(ctx: StepContext) -> Outcome:
    """Every living pooler leads the tenant's clients to its database, unless it is suspended."""
    tenant, _ = await _now(ctx)
    if tenant.state != "active":
        return Skip(f"the tenant is {tenant.state}")
    return await routing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler, unless it is suspended."""
    tenant, database = await _now(ctx)
    if tenant.state != "active":
        return Skip(f"the tenant is {tenant.state}")
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, database.role_set_id, "active")
    return await routing.verify_works(ctx, credential)


async def _pause(ctx: StepContext) -> str:
    try:
        await pause_everywhere(
            ctx.ports.catalog,
            ctx.tenant_id,
            operation_id=ctx.operation.id,
            epoch=ctx.epoch,
            seconds=_PAUSE_SECONDS,
            answer_within=_ANSWER_SECONDS,
        )
    except (NotFound, PoolerUnavailable) as error:
        return f"clients are not held: {error.message}"
    return "clients wait"


async def _tell_databases(ctx: StepContext) -> None:
    """Both databases say what they are now, and only the primary lets the tenant in."""
    async with ctx.catalog_read() as db:
        live = await databases.primary(db, ctx.tenant_id)
        kept = await replacements.previous(db, ctx.tenant_id)
    if kept is not None:
        await _retire(ctx, kept)
    server = await ctx.server(live.server_id)
    async with ctx.admin(server) as admin:
        await tenant_database.open_to_roles(admin, live.name, live.roles)
    inside = await ctx.inside(server, live.name)
    await tenant_database.write_identity(inside, ctx.tenant_id, live.generation, "primary")


async def _retire(ctx: StepContext, kept: Database) -> None:
    server = await ctx.server(kept.server_id)
    try:
        async with ctx.admin(server) as admin:
            await tenant_database.close_to_roles(admin, kept.name, kept.roles)
        inside = await ctx.inside(server, kept.name)
        await tenant_database.write_identity(inside, ctx.tenant_id, kept.generation, "previous")
    except ServerUnavailable:
        if not _is_lost(ctx):
            raise


def _is_lost(ctx: StepContext) -> bool:
    """Whether the request said that the server of the replaced database is gone for good."""
    return bool(ctx.operation.input.get("source_lost"))


async def _now(ctx: StepContext) -> tuple[Tenant, Database]:
    async with ctx.catalog_read() as db:
        return await tenants.get(db, ctx.tenant_id), await databases.primary(db, ctx.tenant_id)
