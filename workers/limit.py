"""Limit: a tenant's own limits in place of its tier's, or its tier's again; no client is cut off.

Pools grow only into connections that the logins may have, and shrink before those are taken away.
"""

import msgspec

from control_plane.adapters import tenant_roles
from control_plane.catalog import databases, tenant_limits, tenants
from control_plane.catalog.databases import Database
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import LoginLimits, OwnLimits
from workers.engine.step import Done, Outcome, StepContext, Verb, Wait
from workers.steps import databases as making
from workers.steps import routes as routing

_PATIENCE_SECONDS = 60.0


async def set_login_limits(ctx: StepContext) -> Outcome:
    """The limits are on record; new sessions keep to them, with as many connections as before."""
    own = msgspec.convert(ctx.operation.input["limits"], OwnLimits)
    reason = ctx.operation.input["reason"]
    async with ctx.catalog_write() as db:
        await tenant_limits.put(
            db,
            ctx.tenant_id,
            own,
            actor=ctx.operation.actor,
            reason=str(reason) if reason is not None else None,
        )
    database, wanted = await _what(ctx)
    async with ctx.admin(await ctx.server(database.server_id)) as admin:
        found = await tenant_roles.inspect_logins(admin, database.roles.logins)
    before = max((fact.connection_limit for fact in found.values()), default=0)
    widest = max(before, wanted.connections)
    await making.open_logins(ctx, database, msgspec.structs.replace(wanted, connections=widest))
    return Done()


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler has pools of the new size, and closes what is open beyond it."""
    return await routing.publish(ctx)


async def set_connection_limit(ctx: StepContext) -> Outcome:
    """The logins may have as many connections as wanted, once they have no more than that."""
    database, wanted = await _what(ctx)
    async with ctx.admin(await ctx.server(database.server_id)) as admin:
        held = await tenant_roles.most_sessions(admin, database.roles.logins)
    if wanted.connections < held and ctx.waited_seconds < _PATIENCE_SECONDS:
        return Wait(1.0, f"{held} sessions are open, {wanted.connections} will be allowed")
    await making.open_logins(ctx, database, wanted)
    return Done(f"{wanted.connections} connections")


async def _what(ctx: StepContext) -> tuple[Database, LoginLimits]:
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        return await databases.primary(db, ctx.tenant_id), tenant.limits.login


VERB = Verb(plan=PLANS["limit"], steps=(set_login_limits, publish_route, set_connection_limit))
