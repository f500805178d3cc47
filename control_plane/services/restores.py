"""What may be asked of backups once something went wrong: restore in place, beside, undo."""

from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import (
    audit,
    backups,
    databases,
    operations,
    replacements,
    servers,
    tenants,
)
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.backups import Backup
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import Invalid, NoCapacity, WrongState
from control_plane.domain.names import database_name, show
from control_plane.domain.operations import Operation
from control_plane.domain.placement import Placement, Wish
from control_plane.domain.plans import PLANS, Kind
from control_plane.domain.tenants import Tenant, Tier
from control_plane.services.backups import find_backup, require_complete, require_store
from control_plane.services.placing import (
    NewTenant,
    check_names,
    insert_tenant,
    make_role_set,
    reserve_place,
    template_named,
)
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_SERVED = ("active", "suspended")
_MAJOR = 10_000


class InPlace(msgspec.Struct, frozen=True):
    """Bring a tenant back to a backup; without ``backup`` to the one with the youngest data.

    ``server``: another server than the tenant's own. ``source_lost``: that one is gone for good,
    so that nobody can be kept out of it any more.
    """

    backup: str | None = None
    server: str | None = None
    source_lost: bool = False


class Beside(msgspec.Struct, frozen=True):
    """Make a new tenant out of a backup; what is left out is as the backup's tenant has it."""

    slug: str
    backup: str | None = None
    name: str | None = None
    tier: Tier | None = None
    region: str | None = None
    server: str | None = None


async def restore_in_place(
    db: Connection, ports: Ports, caller: Caller, slug: str, wanted: InPlace
) -> Operation:
    """Put a backup in the place of a tenant's database; the DSN stays, the old one is kept.

    Raises:
        Invalid: the backup is another tenant's, or there is no such server.
        NoCapacity: the other server has no place.
        NotFound, WrongState, OperationInProgress, Conflict: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    require_store(ports)
    backup = await _chosen(db, caller, tenant, wanted.backup)
    scratch_id = clock.new_id()
    operation = await _record(
        db,
        caller,
        "restore",
        tenant,
        {
            "backup": show("bk", backup.id),
            "scratch": show("db", scratch_id),
            "cause": "restore",
            "source_lost": wanted.source_lost,
        },
    )
    await _require_served(db, tenant)
    live = await databases.primary(db, tenant.id)
    if wanted.source_lost and wanted.server is None:
        message = "name the server to restore on; the tenant's own is said to be lost"
        raise Invalid(message, [{"field": "server", "message": message}])
    server_id = await _other_server(db, wanted.server, live, backup)
    place = server_id, live.template_fingerprint
    holds = server_id != live.server_id
    await databases.insert(db, _scratch(backup, scratch_id, tenant.id, place, holds=holds))
    facts = _facts(operation, backup)
    await audit.record(
        db, caller, Entry("tenant.restore", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def restore_beside(
    db: Connection, ports: Ports, caller: Caller, slug: str, wanted: Beside
) -> Operation:
    """Make a new tenant, with its own logins and DSN, out of a backup of this one.

    Raises:
        Invalid, SlugTaken: the new slug cannot be used.
        NoCapacity: no server fits; the message says why for each.
        NotFound, WrongState, Conflict: see there.
    """
    source = await find_tenant(db, caller, slug)
    require_store(ports)
    backup = await _chosen(db, caller, source, wanted.backup)
    new = NewTenant(
        slug=wanted.slug,
        name=wanted.name or f"{source.name} (restored)",
        tier=wanted.tier or source.tier,
        region=wanted.region or source.region,
        server=wanted.server,
        labels=source.labels,
        template=source.template,
    )
    await check_names(db, new)
    placement = await _place(db, ports, new, backup)
    tenant_id, scratch_id = clock.new_id(), clock.new_id()
    await make_role_set(db, ports, tenant_id)
    await insert_tenant(db, new, tenant_id, placement)
    place = placement.server_id, placement.content
    await databases.insert(db, _scratch(backup, scratch_id, tenant_id, place, holds=True))
    operation = await _record(
        db,
        caller,
        "restore_beside",
        await tenants.get(db, tenant_id),
        {"backup": show("bk", backup.id), "scratch": show("db", scratch_id), "cause": "restore"},
    )
    facts = _facts(operation, backup) | {"from": source.slug, "server": placement.server}
    await audit.record(
        db, caller, Entry("tenant.restore_beside", new.slug, tenant_id=tenant_id, facts=facts)
    )
    return operation


async def undo_restore(db: Connection, caller: Caller, slug: str) -> Operation:
    """Take back the database that an in-place restore has replaced; the present one is kept.

    Raises:
        WrongState: none is kept (any more).
        NoCapacity: it is on a server that has no place for the tenant.
        NotFound, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    kept = await replacements.previous(db, tenant.id)
    if kept is None:
        raise WrongState(
            f"no earlier database of {tenant.slug} is kept; restore a backup instead "
            f"(tenantry backups list {tenant.slug})"
        )
    operation = await _record(db, caller, "restore_undo", tenant, {"kept": show("db", kept.id)})
    await _require_served(db, tenant)
    if await replacements.previous(db, tenant.id) != kept:
        raise WrongState(f"{tenant.slug} was restored again a moment ago; look before undoing that")
    live = await databases.primary(db, tenant.id)
    if kept.server_id != live.server_id:
        await _take_place(db, kept.server_id)
        await replacements.hold_place(db, kept.id)
    await audit.record(db, caller, Entry("tenant.restore_undo", tenant.slug, tenant_id=tenant.id))
    return operation


async def _chosen(db: Connection, caller: Caller, tenant: Tenant, shown: str | None) -> Backup:
    if shown is None:
        newest = await backups.newest_complete(db, tenant.id)
        if newest is None:
            raise WrongState(
                f"{tenant.slug} has no complete backup; make one: tenantry backup {tenant.slug}"
            )
        return newest
    backup = await find_backup(db, caller, shown)
    if backup.tenant_id != tenant.id:
        message = f"backup {shown} is not a backup of {tenant.slug}"
        raise Invalid(message, [{"field": "backup_id", "message": message}])
    require_complete(backup)
    return backup


async def _other_server(db: Connection, name: str | None, live: Database, backup: Backup) -> UUID:
    """The server to restore on; another one than the tenant's own has a place taken on it."""
    if name is None:
        return live.server_id
    server = next((each for each in await servers.every(db) if each.name == name), None)
    if server is None:
        message = f"there is no server {name!r}; see: tenantry servers list"
        raise Invalid(message, [{"field": "server", "message": message}])
    if server.version_num // _MAJOR < (backup.server_version or 0) // _MAJOR:
        message = (
            f"{name} has Postgres {server.version_num // _MAJOR}; the backup is of Postgres "
            f"{(backup.server_version or 0) // _MAJOR} and needs the same or a newer one"
        )
        raise Invalid(message, [{"field": "server", "message": message}])
    if server.id != live.server_id:
        await _take_place(db, server.id)
    return server.id


async def _take_place(db: Connection, server_id: UUID) -> None:
    if not await servers.reserve(db, server_id, alone=False):
        server = await servers.get(db, server_id)
        raise NoCapacity(f"server {server.name} is {server.state} or full; it takes no tenant")


async def _place(db: Connection, ports: Ports, new: NewTenant, backup: Backup) -> Placement:
    wish = Wish(new.tier, new.region, new.server, (backup.server_version or 0) // _MAJOR)
    return await reserve_place(db, template_named(ports, new.template), wish)


def _scratch(
    backup: Backup, scratch_id: UUID, tenant_id: UUID, place: tuple[UUID, str], *, holds: bool
) -> Database:
    """The database the backup will be loaded into; it begins under the roles of the backup.

    ``place`` is the server and the template's content, until the manifest says which it was.
    """
    server_id, content = place
    return Database(
        id=scratch_id,
        role_set_id=backup.tenant_id,
        tenant_id=tenant_id,
        server_id=server_id,
        name=database_name(scratch_id),
        template=backup.template or DEFAULT_TEMPLATE,
        template_fingerprint=content,
        schema_revision=backup.schema_revision,
        generation=1,
        purpose="scratch",
        created_at=clock.now(),
        backup_id=backup.id,
        holds_place=holds,
    )


def _facts(operation: Operation, backup: Backup) -> dict[str, object]:
    return {"operation": show("op", operation.id), "backup": show("bk", backup.id)}


async def _require_served(db: Connection, tenant: Tenant) -> None:
    """Look once the operation is recorded: before that, another one may still change the state."""
    now = await tenants.get(db, tenant.id)
    if now.state not in _SERVED:
        raise WrongState(
            f"{now.slug} is {now.state}; only a tenant that is active or suspended can be restored "
            "in place (tenantry restore --as makes a new tenant)"
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
