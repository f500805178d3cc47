"""Retire a login: after the grace of a rotation, the previous credentials stop working."""

from control_plane.adapters import tenant_roles
from control_plane.catalog import databases
from control_plane.catalog.pool import Connection
from control_plane.domain.names import Slot
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb
from workers.steps import routes as routing

_IN_USE = "a later rotation uses this login"


async def withdraw_login(ctx: StepContext) -> Outcome:
    """No living pooler lets the previous login in."""
    async with ctx.catalog_write() as db:
        await databases.revoke_credential(db, ctx.tenant_id, _slot(ctx))
    return await routing.announce(ctx)


async def revoke_login(ctx: StepContext) -> Outcome:
    """The server refuses the previous login."""
    async with ctx.catalog_read() as db:
        database = await databases.primary(db, ctx.tenant_id)
        if await _is_in_use(db, ctx):
            return Skip(_IN_USE)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        await tenant_roles.close_login(connection, database.roles.login(_slot(ctx)))
    return Done()


async def terminate_sessions(ctx: StepContext) -> Outcome:
    """No session of the previous login is left."""
    async with ctx.catalog_read() as db:
        database = await databases.primary(db, ctx.tenant_id)
        if await _is_in_use(db, ctx):
            return Skip(_IN_USE)
    logins = [database.roles.login(_slot(ctx))]
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        ended = await tenant_roles.terminate_login_sessions(connection, logins)
    return Done(f"{ended} sessions ended")


async def forget_secret(ctx: StepContext) -> Outcome:
    """The previous secret exists nowhere any more."""
    async with ctx.catalog_write() as db:
        await databases.forget_credential(db, ctx.tenant_id, _slot(ctx))
    return Done()


async def _is_in_use(db: Connection, ctx: StepContext) -> bool:
    held = (await databases.credentials(db, ctx.tenant_id)).get(_slot(ctx))
    return held is not None and held.state != "revoked"


def _slot(ctx: StepContext) -> Slot:
    slot: Slot = "a" if ctx.operation.input["slot"] == "a" else "b"
    return slot


VERB = Verb(
    plan=PLANS["retire_login"],
    steps=(withdraw_login, revoke_login, terminate_sessions, forget_secret),
)
