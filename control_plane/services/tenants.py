"""What may be asked for a tenant: validate, record, and leave the rest to a worker.

Every function runs inside the transaction of its request and returns the operation it wrote.
"""

from uuid import UUID

from control_plane.adapters import clock
from control_plane.adapters.template_files import Template
from control_plane.catalog import audit, databases, operations, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict, NotFound, WrongState
from control_plane.domain.keys import may_see
from control_plane.domain.names import database_name
from control_plane.domain.operations import Operation
from control_plane.domain.placement import Placement, Wish
from control_plane.domain.plans import PLANS, Kind
from control_plane.domain.tenants import Tenant, TenantState
from control_plane.services.placing import (
    NewTenant,
    check_names,
    insert_tenant,
    make_role_set,
    reserve_place,
    template_named,
)
from control_plane.services.ports import Ports


async def create_tenant(
    db: Connection, ports: Ports, caller: Caller, wanted: NewTenant
) -> Operation:
    """Reserve slug, server place and cell place, and record the provisioning.

    A database of the pool is claimed when there is one; otherwise one will be created.

    Raises:
        Invalid: the slug is malformed or reserved, or there is no such template.
        Conflict: the template's files are broken at the moment.
        SlugTaken: a living tenant has it.
        NoCapacity: no server fits; the message says why for each.
    """
    await check_names(db, wanted)
    template = template_named(ports, wanted.template)
    wish = Wish(wanted.tier, wanted.region, wanted.server)
    placement = await reserve_place(db, template, wish)
    pooled = await databases.take_pooled(db, placement.server_id, placement.content)
    tenant_id = pooled.id if pooled else clock.new_id()
    if pooled is None:
        await make_role_set(db, ports, tenant_id)
    await insert_tenant(db, wanted, tenant_id, placement)
    if pooled is None:
        await databases.insert(db, _new_database(template, tenant_id, placement))
    else:
        await databases.claim(db, pooled.id, tenant_id)
    operation = await _record(
        db, caller, "provision", tenant_id, wanted.slug, {"claimed": pooled is not None}
    )
    facts: dict[str, object] = {"server": placement.server, "tier": wanted.tier}
    await audit.record(
        db, caller, Entry("tenant.create", wanted.slug, tenant_id=tenant_id, facts=facts)
    )
    return operation


async def suspend_tenant(db: Connection, caller: Caller, slug_or_id: str) -> Operation:
    """Cut a tenant off and keep its data.

    Raises:
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    operation = await _record(db, caller, "suspend", tenant.id, tenant.slug, {})
    await _require_state(db, tenant, "active", "suspended")
    await audit.record(db, caller, Entry("tenant.suspend", tenant.slug, tenant_id=tenant.id))
    return operation


async def resume_tenant(db: Connection, caller: Caller, slug_or_id: str) -> Operation:
    """Let a suspended tenant in again, with the credentials it had.

    Raises:
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    operation = await _record(db, caller, "resume", tenant.id, tenant.slug, {})
    await _require_state(db, tenant, "suspended", "resumed")
    await audit.record(db, caller, Entry("tenant.resume", tenant.slug, tenant_id=tenant.id))
    return operation


async def rotate_credentials(
    db: Connection, ports: Ports, caller: Caller, slug_or_id: str, grace_seconds: int | None
) -> Operation:
    """Give the tenant new credentials; the old ones work until the grace is over.

    Raises:
        NotFound, WrongState, OperationInProgress: see there.
        Conflict: the previous credentials are still in their grace.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    grace = ports.settings.rotation_grace_seconds if grace_seconds is None else grace_seconds
    operation = await _record(
        db, caller, "rotate", tenant.id, tenant.slug, {"grace_seconds": grace}
    )
    await _require_state(db, tenant, "active", "rotated")
    held = await databases.credentials(db, tenant.id)
    ends = [c.retire_at for c in held.values() if c.state == "retiring" and c.retire_at]
    if ends:
        raise Conflict(
            f"{tenant.slug} still has previous credentials: their grace ends at "
            f"{ends[0]:%Y-%m-%d %H:%M:%S} UTC; rotate again after that"
        )
    await audit.record(
        db,
        caller,
        Entry("tenant.rotate", tenant.slug, tenant_id=tenant.id, facts={"grace_seconds": grace}),
    )
    return operation


async def find_tenant(db: Connection, caller: Caller, slug_or_id: str) -> Tenant:
    """The tenant, if this caller may know of it.

    Raises:
        NotFound: there is none, or it is somebody else's: the answer is the same (S-24).
    """
    tenant = await tenants.find(db, slug_or_id)
    if not may_see(caller.principal, tenant.id):
        raise NotFound(f"there is no tenant {slug_or_id!r}")
    return tenant


async def _require_state(db: Connection, tenant: Tenant, needed: TenantState, verb: str) -> None:
    """Look once the operation is recorded: before that, another one may still change the state."""
    now = await tenants.get(db, tenant.id)
    if now.state != needed:
        raise WrongState(f"{now.slug} is {now.state}; only a tenant that is {needed} can be {verb}")


def _new_database(template: Template, tenant_id: UUID, placement: Placement) -> Database:
    return Database(
        id=tenant_id,
        role_set_id=tenant_id,
        tenant_id=tenant_id,
        server_id=placement.server_id,
        name=database_name(tenant_id),
        template=template.name,
        template_fingerprint=placement.content,
        schema_revision=None,
        generation=1,
        purpose="primary",
        created_at=clock.now(),
    )


async def _record(
    db: Connection,
    caller: Caller,
    kind: Kind,
    tenant_id: UUID,
    slug: str,
    details: dict[str, object],
) -> Operation:
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS[kind],
            subject=slug,
            actor=caller.principal.name,
            tenant_id=tenant_id,
            input=details,
        ),
    )
