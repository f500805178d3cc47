"""Provision: from a recorded request to a tenant whose application can connect.

When the request claimed a database of the pool, its roles and schema are there already: those
steps only turn them into this tenant's.
"""

from control_plane.catalog import databases, tenants
from control_plane.catalog.databases import Credential, Database
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import LoginLimits
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb
from workers.steps import databases as making
from workers.steps import routes as routing
from workers.steps.giving_up import give_up_tenant

_CLAIMED = "claimed from the pool"


async def create_roles(ctx: StepContext) -> Outcome:
    """The tenant's roles exist and its active login is open, within its tier's limits."""
    database, limits = await _database_and_limits(ctx)
    if ctx.operation.input["claimed"]:
        await making.require_unclaimed(ctx, database)
    else:
        await making.make_roles(ctx, database, limits)
    await making.open_logins(ctx, database, limits)
    return Done(_CLAIMED if ctx.operation.input["claimed"] else f"roles {database.roles.prefix}_*")


async def create_database(ctx: StepContext) -> Outcome:
    """The tenant's database exists and is closed to everybody else."""
    if ctx.operation.input["claimed"]:
        return Skip(_CLAIMED)
    return await making.make_database(ctx, await _database(ctx))


async def apply_template(ctx: StepContext) -> Outcome:
    """Schema, grants and identity marker are the tenant's own."""
    database = await _database(ctx)
    if ctx.operation.input["claimed"]:
        return await making.mark_primary(ctx, database)
    return await making.adopt_template(ctx, database, "primary")


async def verify_schema(ctx: StepContext) -> Outcome:
    """The database is exactly what it must be."""
    return await making.verify_database(ctx, await _database(ctx), "primary")


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler serves the tenant's alias on both endpoints."""
    return await routing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The tenant's login works through every living pooler, as its application will use it."""
    return await routing.verify_works(ctx, await _active_credential(ctx))


async def activate(ctx: StepContext) -> Outcome:
    """The tenant is active."""
    async with ctx.catalog_write() as db:
        await tenants.change_state(db, ctx.tenant_id, expected="provisioning", wanted="active")
    return Done()


async def _database(ctx: StepContext) -> Database:
    async with ctx.catalog_read() as db:
        return await databases.primary(db, ctx.tenant_id)


async def _database_and_limits(ctx: StepContext) -> tuple[Database, LoginLimits]:
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        return await databases.primary(db, ctx.tenant_id), tenant.limits.login


async def _active_credential(ctx: StepContext) -> Credential:
    async with ctx.catalog_read() as db:
        return await databases.credential_in(db, ctx.tenant_id, "active")


VERB = Verb(
    plan=PLANS["provision"],
    steps=(
        create_roles,
        create_database,
        apply_template,
        verify_schema,
        publish_route,
        verify_login,
        activate,
    ),
    abandon=give_up_tenant,
)
