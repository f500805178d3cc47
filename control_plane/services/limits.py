"""What may be asked about a tenant's limits: look, set some of its own, go back to the tier's."""

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit, operations, tenant_limits, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid, WrongState
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import TIER_LIMITS, OwnLimits, Tenant, TierLimits, pool_problem
from control_plane.services.tenants import find_tenant


class TenantLimits(msgspec.Struct, frozen=True):
    """The limits in force, those of the tier, and which of them are the tenant's own, and why."""

    tenant: Tenant
    in_force: TierLimits
    of_tier: TierLimits
    own: OwnLimits
    reason: str | None


async def limits_of(db: Connection, caller: Caller, slug_or_id: str) -> TenantLimits:
    """A tenant's limits.

    Raises:
        NotFound: there is no such tenant for this caller.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    return TenantLimits(
        tenant=tenant,
        in_force=tenant.limits,
        of_tier=TIER_LIMITS[tenant.tier],
        own=tenant.own_limits or OwnLimits(),
        reason=await tenant_limits.reason(db, tenant.id),
    )


async def set_limits(
    db: Connection, caller: Caller, slug_or_id: str, own: OwnLimits, *, reason: str | None = None
) -> Operation:
    """Give a tenant limits of its own; what ``own`` leaves out is the tier's.

    Raises:
        Invalid: its pools could want more connections than its logins may have.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    problem = pool_problem(own.over(TIER_LIMITS[tenant.tier]))
    if problem is not None:
        raise Invalid(f"connections: {problem}", [{"field": "connections", "message": problem}])
    return await _record(db, caller, tenant, own, reason)


async def reset_limits(db: Connection, caller: Caller, slug_or_id: str) -> Operation:
    """Give a tenant the limits of its tier again.

    Raises:
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    return await _record(db, caller, tenant, OwnLimits(), None)


async def _record(
    db: Connection, caller: Caller, tenant: Tenant, own: OwnLimits, reason: str | None
) -> Operation:
    given = {name: value for name, value in msgspec.to_builtins(own).items() if value is not None}
    operation = await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["limit"],
            subject=tenant.slug,
            actor=caller.principal.name,
            tenant_id=tenant.id,
            input={"limits": given, "reason": reason},
        ),
    )
    now = await tenants.get(db, tenant.id)
    if now.state != "active":
        raise WrongState(f"{now.slug} is {now.state}; only an active tenant can be limited")
    action = "tenant.limit" if given else "tenant.unlimit"
    facts: dict[str, object] = {"limits": given}
    entry = Entry(action, tenant.slug, tenant_id=tenant.id, facts=facts, reason=reason)
    await audit.record(db, caller, entry)
    return operation
