"""What may be asked about legal holds: put a tenant under one, look, release it."""

from control_plane.catalog import audit, holds, operations, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.holds import Hold
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import OperationInProgress, WrongState
from control_plane.domain.names import show
from control_plane.domain.tenants import Tenant
from control_plane.services.tenants import find_tenant


async def hold_tenant(db: Connection, caller: Caller, slug: str, reason: str) -> Tenant:
    """From now on nothing of the tenant is destroyed, whoever asks for it.

    Raises:
        WrongState: it is deleted already.
        OperationInProgress: its backups and keys are being destroyed at this moment.
        NotFound: see ``find_tenant``.
    """
    tenant = await tenants.lock(db, (await find_tenant(db, caller, slug)).id)
    if tenant.state == "deleted":
        raise WrongState(f"{tenant.slug} is deleted; there is nothing left to hold")
    await _refuse_too_late(db, tenant)
    await holds.put(db, tenant.id, reason, caller.principal.name)
    await audit.record(
        db, caller, Entry("tenant.hold", tenant.slug, tenant_id=tenant.id, reason=reason)
    )
    return await tenants.get(db, tenant.id)


async def release_tenant(db: Connection, caller: Caller, slug: str, reason: str | None) -> Tenant:
    """End a legal hold; a deletion that waited for it goes on.

    Raises:
        WrongState: the tenant is under no hold.
        NotFound: see ``find_tenant``.
    """
    tenant = await tenants.lock(db, (await find_tenant(db, caller, slug)).id)
    hold = await holds.find(db, tenant.id)
    if hold is None:
        raise WrongState(f"{tenant.slug} is under no legal hold")
    await holds.lift(db, tenant.id)
    facts: dict[str, object] = {"held_since": hold.at.isoformat(), "held_for": hold.reason}
    entry = Entry("tenant.release", tenant.slug, tenant_id=tenant.id, reason=reason, facts=facts)
    await audit.record(db, caller, entry)
    return await tenants.get(db, tenant.id)


async def find_hold(db: Connection, caller: Caller, slug: str) -> Hold | None:
    """The hold a tenant is under, if there is one.

    Raises:
        NotFound: see ``find_tenant``.
    """
    return await holds.find(db, (await find_tenant(db, caller, slug)).id)


async def _refuse_too_late(db: Connection, tenant: Tenant) -> None:
    """What shreds looks for a hold under the tenant's lock before it begins, and then goes on."""
    if tenant.operation_id is None or tenant.operation_kind != "shred":
        return
    operation = await operations.get(db, tenant.operation_id)
    if any(step.state != "pending" for step in operation.steps):
        shown = show("op", operation.id)
        raise OperationInProgress(
            f"{tenant.slug} is being destroyed by {shown} at this moment; a hold comes too late",
            operation=shown,
        )
