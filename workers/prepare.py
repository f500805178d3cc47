"""Prepare: one database of the pool, complete but for its tenant."""

from control_plane.catalog import databases
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import TIER_LIMITS
from control_plane.services import reclaiming
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import databases as making


async def create_roles(ctx: StepContext) -> Outcome:
    """The roles of a tenant to come exist; nobody can log in with them."""
    limits = TIER_LIMITS["standard"].login
    return await making.make_roles(ctx, await _database(ctx), limits)


async def create_database(ctx: StepContext) -> Outcome:
    """The database exists and is closed."""
    return await making.make_database(ctx, await _database(ctx))


async def apply_template(ctx: StepContext) -> Outcome:
    """Schema and grants belong to the roles to come; the identity says ``pooled``."""
    return await making.adopt_template(ctx, await _database(ctx), "pooled")


async def verify_schema(ctx: StepContext) -> Outcome:
    """The database is exactly what it must be."""
    return await making.verify_database(ctx, await _database(ctx), "pooled")


async def offer_database(ctx: StepContext) -> Outcome:
    """A request may claim the database."""
    async with ctx.catalog_write() as db:
        await databases.offer(db, ctx.database_id)
    return Done()


async def abandon(ctx: StepContext, db: Connection) -> None:
    """Whatever exists of the database is reclaimed later, unless it was offered or is gone."""
    database = await databases.find(db, ctx.database_id)
    if database is not None and database.purpose == "preparing":
        await reclaiming.condemn(db, database, ctx.operation.actor)


async def _database(ctx: StepContext) -> Database:
    async with ctx.catalog_read() as db:
        return await databases.get(db, ctx.database_id)


VERB = Verb(
    plan=PLANS["prepare"],
    steps=(create_roles, create_database, apply_template, verify_schema, offer_database),
    abandon=abandon,
)
