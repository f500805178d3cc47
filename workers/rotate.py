"""Rotate: new credentials in the other login, proven before anybody is told of them.

The secret is stored before the server knows it (F22): a crash at any line leaves either the old
credentials working, or both.
"""

from control_plane.catalog import databases, tenants
from control_plane.catalog.databases import Credential
from control_plane.catalog.pool import Connection
from control_plane.domain.names import Slot
from control_plane.domain.plans import PLANS
from control_plane.router.credentials import new_credential
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb
from workers.steps import databases as making
from workers.steps import routes as routing

_SWITCHED = "already switched"


async def write_next_secret(ctx: StepContext) -> Outcome:
    """The next secret is stored, sealed, in the slot that is not in use."""
    async with ctx.catalog_write() as db:
        held = await databases.credentials(db, ctx.tenant_id)
        if any(credential.state == "next" for credential in held.values()):
            return Done("stored before")
        active = next(c for c in held.values() if c.state == "active")
        slot: Slot = "b" if active.slot == "a" else "a"
        await databases.put_credential(
            db,
            new_credential(
                ctx.ports.keyring, ctx.tenant_id, slot, version=active.version + 1, state="next"
            ),
        )
    return Done(f"slot {slot}, version {active.version + 1}")


async def set_inactive_login(ctx: StepContext) -> Outcome:
    """The server knows the next secret."""
    async with ctx.catalog_read() as db:
        tenant = await tenants.get(db, ctx.tenant_id)
        database = await databases.primary(db, ctx.tenant_id)
    await making.open_logins(ctx, database, tenant.limits.login)
    return Done()


async def publish_login(ctx: StepContext) -> Outcome:
    """Every living pooler knows the next secret, beside the present one."""
    return await routing.announce(ctx)


async def verify_login(ctx: StepContext) -> Outcome:
    """The next login works through every living pooler."""
    async with ctx.catalog_read() as db:
        credential = await _next(db, ctx)
    if credential is None:
        return Skip(_SWITCHED)
    return await routing.verify_works(ctx, credential)


async def switch_login(ctx: StepContext) -> Outcome:
    """The DSN carries the new credentials; the old ones work until their grace is over."""
    grace = int(ctx.operation.input["grace_seconds"])
    async with ctx.catalog_write() as db:
        await databases.switch_active(db, ctx.tenant_id, grace_seconds=grace)
    return Done(f"the previous credentials work for {grace} s more")


async def _next(db: Connection, ctx: StepContext) -> Credential | None:
    held = await databases.credentials(db, ctx.tenant_id)
    return next((c for c in held.values() if c.state == "next"), None)


VERB = Verb(
    plan=PLANS["rotate"],
    steps=(write_next_secret, set_inactive_login, publish_login, verify_login, switch_login),
)
