"""What may be asked to put a tenant away and to take it out again; the DSN stays.

An archived tenant is a backup that was restored and compared: no database, no place on a server.
"""

from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import (
    audit,
    backups,
    databases,
    holds,
    lifecycle,
    operations,
    tenants,
)
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.backups import Backup
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid, WrongState
from control_plane.domain.names import database_name, show
from control_plane.domain.operations import Operation
from control_plane.domain.placement import Placement, Wish
from control_plane.domain.plans import PLANS, Kind
from control_plane.domain.tenants import Tenant
from control_plane.services.backups import find_backup, require_complete, require_store
from control_plane.services.placing import reserve_place, template_named
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_ARCHIVABLE = ("active", "suspended")
_MAJOR = 10_000


class Destination(msgspec.Struct, frozen=True):
    """Where an archived tenant goes; what is left out is as it was or as it fits.

    ``backup``: another backup than its archive, for when that turned out to be damaged.
    """

    server: str | None = None
    region: str | None = None
    backup: str | None = None


async def archive_tenant(db: Connection, ports: Ports, caller: Caller, slug: str) -> Operation:
    """Cut a tenant off, back it up, prove the backup, and drop its database.

    Raises:
        Conflict: no store is configured.
        LegalHold: nothing of it may be destroyed, and its database would be.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    require_store(ports)
    details: dict[str, object] = {
        "scratch": show("db", clock.new_id()),
        "cause": "archive",
        # One that was cut off on purpose is not let in again when this fails.
        "reopen": await lifecycle.is_open(db, tenant.id),
    }
    operation = await _record(db, caller, "archive", tenant, details)
    now = await tenants.get(db, tenant.id)
    if now.state not in _ARCHIVABLE:
        raise WrongState(
            f"{now.slug} is {now.state}; only a tenant that is active or suspended can be archived"
        )
    await holds.refuse_held(db, tenant.id)
    await audit.record(db, caller, Entry("tenant.archive", tenant.slug, tenant_id=tenant.id))
    return operation


async def unarchive_tenant(
    db: Connection, ports: Ports, caller: Caller, slug: str, wanted: Destination
) -> Operation:
    """Restore an archived tenant and let it in, with the credentials and the DSN it had.

    Raises:
        Invalid: there is no such server, the backup is another tenant's, or the tenant's
            template is unknown here.
        NoCapacity: no server fits; the message says why for each.
        Conflict: no store is configured.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    require_store(ports)
    backup = await _chosen(db, caller, tenant, wanted.backup)
    scratch_id = clock.new_id()
    details: dict[str, object] = {
        "backup": show("bk", backup.id),
        "scratch": show("db", scratch_id),
        "cause": "unarchive",
    }
    operation = await _record(db, caller, "unarchive", tenant, details)
    _require_archived(await tenants.get(db, tenant.id))
    placement = await _place(db, ports, tenant, backup, wanted)
    await databases.insert(db, _scratch(scratch_id, tenant, backup, placement))
    await tenants.record_placement(db, tenant.id, placement.reason)
    facts: dict[str, object] = {"server": placement.server, "backup": show("bk", backup.id)}
    await audit.record(
        db, caller, Entry("tenant.unarchive", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def _chosen(db: Connection, caller: Caller, tenant: Tenant, shown: str | None) -> Backup:
    """The backup the tenant consists of, unless another one of it is named."""
    _require_archived(tenant)
    if shown is not None:
        backup = await find_backup(db, caller, shown)
    else:
        backup_id = (await lifecycle.ending(db, tenant.id)).archive_backup_id
        if backup_id is None:
            raise TypeError(f"{tenant.slug} is archived without a backup")
        backup = await backups.get(db, backup_id)
    if backup.tenant_id != tenant.id:
        message = f"backup {shown} is not a backup of {tenant.slug}"
        raise Invalid(message, [{"field": "backup_id", "message": message}])
    require_complete(backup)
    return backup


def _require_archived(tenant: Tenant) -> None:
    if tenant.state != "archived":
        raise WrongState(f"{tenant.slug} is {tenant.state}; only an archived tenant is unarchived")


async def _place(
    db: Connection, ports: Ports, tenant: Tenant, backup: Backup, wanted: Destination
) -> Placement:
    least_major = (backup.server_version or 0) // _MAJOR
    region = wanted.region or (None if wanted.server else tenant.region)
    wish = Wish(tenant.tier, region, wanted.server, least_major)
    return await reserve_place(db, template_named(ports, tenant.template), wish)


def _scratch(scratch_id: UUID, tenant: Tenant, backup: Backup, placement: Placement) -> Database:
    """The database the archive is loaded into; it will be the primary."""
    return Database(
        id=scratch_id,
        role_set_id=tenant.id,
        tenant_id=tenant.id,
        server_id=placement.server_id,
        name=database_name(scratch_id),
        template=tenant.template,
        template_fingerprint=placement.content,
        schema_revision=backup.schema_revision,
        generation=1,
        purpose="scratch",
        created_at=clock.now(),
        backup_id=backup.id,
        holds_place=True,
    )


async def _record(
    db: Connection, caller: Caller, kind: Kind, tenant: Tenant, details: dict[str, object]
) -> Operation:
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS[kind],
            subject=tenant.slug,
            actor=caller.principal.name,
            tenant_id=tenant.id,
            input=details,
        ),
    )
