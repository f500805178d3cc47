"""What may be asked about backups: make one, prove one, look at them."""

import datetime as dt

from control_plane.adapters import clock
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import audit, backups, operations, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.backups import Backup, NewBackup
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.backups import BackupCause, DrillCause
from control_plane.domain.errors import Conflict, NotFound, WrongState
from control_plane.domain.keys import may_see
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_WITH_A_DATABASE = ("active", "suspended")


def require_store(ports: Ports) -> ObjectStore:
    """The store backups go to.

    Raises:
        Conflict: none is configured.
    """
    if ports.store is None:
        raise Conflict(
            "no backup store is configured; set TENANTRY_BACKUP_STORE to s3://bucket/prefix or "
            "file:///directory for the API and the workers"
        )
    return ports.store


async def request_backup(db: Connection, ports: Ports, caller: Caller, slug: str) -> Operation:
    """Back a tenant up now.

    Raises:
        Conflict: no store is configured.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    operation = await begin_backup(db, ports, caller.principal.name, tenant, cause="manual")
    await audit.record(db, caller, Entry("backup.create", tenant.slug, tenant_id=tenant.id))
    return operation


async def begin_backup(
    db: Connection,
    ports: Ports,
    actor: str,
    tenant: Tenant,
    *,
    cause: BackupCause,
    slot_at: dt.datetime | None = None,
) -> Operation:
    """Record a backup and the operation that makes it; ``slot_at`` is the schedule's instant.

    Raises:
        Conflict: no store is configured, or the slot has its backup already.
        WrongState: the tenant has no database that could be backed up.
        OperationInProgress: another operation of the tenant is alive.
    """
    require_store(ports)
    backup_id = clock.new_id()
    operation = await _record(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["backup"],
            subject=tenant.slug,
            actor=actor,
            tenant_id=tenant.id,
            input={"backup": show("bk", backup_id)},
        ),
        tenant,
        "backed up",
    )
    await backups.insert(
        db,
        NewBackup(
            id=backup_id,
            tenant_id=tenant.id,
            operation_id=operation.id,
            cause=cause,
            slot_at=slot_at,
        ),
    )
    return operation


async def request_verification(
    db: Connection, ports: Ports, caller: Caller, shown: str
) -> Operation:
    """Restore a backup into a scratch database, compare it, and write that into the ledger.

    Raises:
        NotFound: there is no such backup, or it is of a tenant the caller may not know of.
        Conflict, WrongState, OperationInProgress: see ``begin_verification``.
    """
    backup = await find_backup(db, caller, shown)
    operation = await begin_verification(db, ports, caller.principal.name, backup, cause="manual")
    facts: dict[str, object] = {"backup": show("bk", backup.id)}
    await audit.record(
        db,
        caller,
        Entry("backup.verify", operation.subject, tenant_id=backup.tenant_id, facts=facts),
    )
    return operation


async def begin_verification(
    db: Connection, ports: Ports, actor: str, backup: Backup, *, cause: DrillCause
) -> Operation:
    """Record the operation that proves a backup.

    Raises:
        Conflict: no store is configured.
        WrongState: the backup is not complete, or its tenant is gone.
        OperationInProgress: another operation of the tenant is alive.
    """
    require_store(ports)
    require_complete(backup)
    tenant = await tenants.get(db, backup.tenant_id)
    if tenant.state in ("provisioning", "deleted"):
        raise WrongState(f"{tenant.slug} is {tenant.state}; its backups are not restored any more")
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["verify_backup"],
            subject=tenant.slug,
            actor=actor,
            tenant_id=tenant.id,
            input={
                "backup": show("bk", backup.id),
                "scratch": show("db", clock.new_id()),
                "cause": cause,
            },
        ),
    )


async def find_backup(db: Connection, caller: Caller, shown: str) -> Backup:
    """The backup with this ``bk_`` id, if the caller may know of its tenant.

    Raises:
        NotFound: there is none, or it is somebody else's: the answer is the same (S-24).
    """
    backup = await backups.find(db, shown)
    if not may_see(caller.principal, backup.tenant_id):
        raise NotFound(f"there is no backup {shown!r}")
    return backup


def require_complete(backup: Backup) -> None:
    """Make sure that a backup can be restored from.

    Raises:
        WrongState: it is not complete; the message says why.
    """
    if backup.state != "complete":
        why = f": {backup.problem}" if backup.problem else ""
        raise WrongState(
            f"backup {show('bk', backup.id)} is {backup.state}{why}; choose a complete one "
            "(tenantry backups list)"
        )


async def _record(
    db: Connection, wanted: NewOperation, tenant: Tenant, done_to_it: str
) -> Operation:
    """Look at the state once the operation is recorded: before that, another may change it."""
    operation = await operations.insert(db, wanted)
    now = await tenants.get(db, tenant.id)
    if now.state not in _WITH_A_DATABASE:
        raise WrongState(
            f"{now.slug} is {now.state}; only a tenant that is active or suspended can be "
            f"{done_to_it}"
        )
    return operation
