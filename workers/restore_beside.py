"""Restore beside: a new tenant, with logins and a DSN of its own, made out of a backup."""

import asyncio

from control_plane.adapters import tenant_roles
from control_plane.adapters.adopt_roles import adopt_roles as hand_over
from control_plane.catalog import databases, replacements, tenants
from control_plane.catalog.pool import Connection
from control_plane.domain.names import RoleSet
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps import claiming, drills, replacing, restorable, sealing
from workers.steps import routes as routing
from workers.steps.giving_up import give_up_tenant
from workers.steps.scratch import (
    check_backup,
    compare_content,
    create_scratch,
    examine_scratch,
    fetch_object,
    load_dump,
)


async def record_drill(ctx: StepContext) -> Outcome:
    """The ledger has a line for this restore: what it read, how long it took, that it is equal."""
    await sealing.go_on(ctx)
    return await drills.record(ctx)


async def adopt_roles(ctx: StepContext) -> Outcome:
    """Everything in the database belongs to the new tenant's roles, and to no other tenant's."""
    what = await restorable.begun(ctx)
    new = RoleSet(ctx.tenant_id)
    async with ctx.admin(what.server) as admin:
        await tenant_roles.ensure_role_set(admin, new, what.limits)
    inside = await ctx.inside(what.server, what.scratch.name)
    await hand_over(inside, what.roles, new)
    async with ctx.catalog_write() as db:
        await replacements.change_roles(db, what.scratch.id, new.key)
        needed = await databases.role_sets_beside(db, what.scratch)
    if what.roles.key not in needed:
        async with ctx.admin(what.server) as admin:
            await tenant_roles.drop_role_set(admin, what.roles, what.server.system_identifier)
    return Done(f"roles {new.prefix}_*")


async def claim_database(ctx: StepContext) -> Outcome:
    """The restored database is the new tenant's primary, and only its roles may enter it."""
    return await claiming.claim(ctx)


async def restore_logins(ctx: StepContext) -> Outcome:
    """The new tenant's active login is open, within its tier's limits."""
    return await replacing.open_logins(ctx)


async def publish_route(ctx: StepContext) -> Outcome:
    """Every living pooler serves the new tenant's alias on both endpoints."""
    return await routing.publish(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The new tenant's login works through every living pooler."""
    async with ctx.catalog_read() as db:
        credential = await databases.credential_in(db, ctx.tenant_id, "active")
    return await routing.verify_works(ctx, credential)


async def activate(ctx: StepContext) -> Outcome:
    """The new tenant is active, and nothing of the restore is left on this machine."""
    await asyncio.to_thread(restorable.spool_file(ctx).unlink, missing_ok=True)
    async with ctx.catalog_write() as db:
        await tenants.change_state(db, ctx.tenant_id, expected="provisioning", wanted="active")
    return Done()


async def abandon(ctx: StepContext, db: Connection) -> None:
    """Write the failure into the ledger and give back what the request reserved."""
    await drills.give_up(ctx, db)
    await give_up_tenant(ctx, db)


VERB = Verb(
    plan=PLANS["restore_beside"],
    steps=(
        check_backup,
        fetch_object,
        create_scratch,
        load_dump,
        compare_content,
        examine_scratch,
        record_drill,
        adopt_roles,
        claim_database,
        restore_logins,
        publish_route,
        verify_login,
        activate,
    ),
    abandon=abandon,
)
