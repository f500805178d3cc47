"""What may be asked to delete a tenant, and to take that back while its grace lasts.

Deleting goes in three parts. ``delete`` cuts the tenant off; until the grace is over ``undelete``
brings it back with the same DSN. Then ticks begin ``purge``, which drops its databases, and
``shred``, which destroys its backups and keys and issues the certificate.
"""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit, certificates, holds, lifecycle, operations, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.certificates import Certificate
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid, WrongState
from control_plane.domain.names import parse, show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS, Kind
from control_plane.domain.tenants import Tenant
from control_plane.services.backups import require_store
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_DELETABLE = ("active", "suspended", "archived")
_DAY_SECONDS = 86_400
KEEP_BACKUPS_DAYS = 30


class DeleteRequest(msgspec.Struct, frozen=True):
    """How to delete; what is left out is as the settings say.

    ``confirm`` repeats the slug. Without ``final_backup`` one is made if backups are kept at all.
    """

    confirm: str
    grace_seconds: int | None = None
    keep_backups_days: int = KEEP_BACKUPS_DAYS
    final_backup: bool | None = None


async def delete_tenant(
    db: Connection, ports: Ports, caller: Caller, slug: str, wanted: DeleteRequest
) -> Operation:
    """Cut a tenant off and begin its grace.

    Raises:
        Invalid: ``confirm`` is not the tenant's slug.
        Conflict: a final backup is wanted and no store is configured.
        LegalHold: nothing of the tenant may be destroyed.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    if wanted.confirm != tenant.slug:
        message = f"repeat the tenant's slug, {tenant.slug}, to say that it is meant"
        raise Invalid(f"confirm: {message}", [{"field": "confirm", "message": message}])
    keeps = wanted.keep_backups_days > 0
    final = keeps if wanted.final_backup is None else wanted.final_backup
    if final and tenant.state != "archived":
        require_store(ports)
    grace = wanted.grace_seconds
    if grace is None:
        grace = round(ports.settings.backup.delete_grace_days * _DAY_SECONDS)
    details: dict[str, object] = {
        "grace_seconds": grace,
        "keep_backups_days": wanted.keep_backups_days,
        "final_backup": final,
        # One that was cut off on purpose is not let in again when this fails.
        "reopen": await lifecycle.is_open(db, tenant.id),
    }
    operation = await _record(db, caller.principal.name, "delete", tenant, details)
    await _require_deletable(db, tenant)
    await holds.refuse_held(db, tenant.id)
    await audit.record(
        db, caller, Entry("tenant.delete", tenant.slug, tenant_id=tenant.id, facts=details)
    )
    return operation


async def undelete_tenant(db: Connection, caller: Caller, slug: str) -> Operation:
    """Bring a tenant back as it was before its deletion, with the same DSN.

    Raises:
        WrongState: it is not being deleted, or its databases are given up already.
        NotFound, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    operation = await _record(db, caller.principal.name, "undelete", tenant, {})
    now = await tenants.get(db, tenant.id)
    if now.state != "deleting":
        raise WrongState(f"{now.slug} is {now.state}; only a tenant being deleted is undeleted")
    if not await _can_come_back(db, now.id):
        kept = f" until {_day(now.shred_after)}" if now.shred_after else ""
        raise WrongState(
            f"the grace of {now.slug} is over and its databases are dropped; its backups are "
            f"kept{kept}: tenantry restore {now.slug} --as NEW_SLUG makes a new tenant of one"
        )
    await audit.record(db, caller, Entry("tenant.undelete", now.slug, tenant_id=now.id))
    return operation


async def begin_ending(db: Connection, tenant_id: UUID, kind: Kind) -> Operation:
    """Record the ``purge`` or ``shred`` whose time has come, for the system itself.

    Raises:
        LegalHold: nothing of the tenant may be destroyed.
        OperationInProgress: another operation of the tenant is alive.
    """
    tenant = await tenants.get(db, tenant_id)
    operation = await _record(db, "system", kind, tenant, {})
    await holds.refuse_held(db, tenant_id)
    facts: dict[str, object] = {"operation": show("op", operation.id)}
    await audit.record_system(
        db, Entry(f"tenant.{kind}", tenant.slug, tenant_id=tenant_id, facts=facts)
    )
    return operation


async def find_certificate(db: Connection, caller: Caller, slug_or_id: str) -> Certificate:
    """The certificate of a tenant that was destroyed; a slug means the last one that had it.

    Raises:
        NotFound: there is no such tenant, and never was one with a certificate.
        WrongState: the tenant is there, and was not destroyed.
    """
    gone = None
    if parse("tn", slug_or_id) is None:
        gone = await certificates.tenant_of_slug(db, slug_or_id)
    if gone is None:
        tenant = await find_tenant(db, caller, slug_or_id)
    else:
        tenant = await find_tenant(db, caller, show("tn", gone))
    found = await certificates.of_tenant(db, tenant.id)
    if found is None:
        raise WrongState(
            f"{tenant.slug} is {tenant.state}; a certificate is issued once its keys are destroyed"
        )
    return found


async def _require_deletable(db: Connection, tenant: Tenant) -> None:
    """Look once the operation is recorded: before that, another one may still change the state."""
    now = await tenants.get(db, tenant.id)
    if now.state == "deleting":
        ends = (
            f"its grace ends {_day(now.delete_after)}" if now.delete_after else "its grace is over"
        )
        raise WrongState(f"{now.slug} is being deleted already; {ends}")
    if now.state not in _DELETABLE:
        raise WrongState(f"{now.slug} is {now.state}; wait for it, or cancel what makes it")


async def _can_come_back(db: Connection, tenant_id: UUID) -> bool:
    known = await lifecycle.ending(db, tenant_id)
    if known.shred_after is not None:
        return False
    if known.deleting_from == "archived":
        return True
    return any(d.purpose == "primary" for d in await lifecycle.databases_of(db, tenant_id))


def _day(at: dt.datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at is not None else "soon"


async def _record(
    db: Connection, actor: str, kind: Kind, tenant: Tenant, details: dict[str, object]
) -> Operation:
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS[kind],
            subject=tenant.slug,
            actor=actor,
            tenant_id=tenant.id,
            input=details,
        ),
    )
