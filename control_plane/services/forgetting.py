"""What a restored catalog knows and nobody has any more: lost servers, tenants that were destroyed.

Nothing but the catalog is touched; both are refused while there is anything left to lose.
"""

import asyncio
from uuid import UUID

from control_plane.adapters.keystore import Keystore
from control_plane.catalog import (
    audit,
    backups,
    databases,
    lifecycle,
    recovery,
    routes,
    servers,
    tenant_keys,
    tenants,
)
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.lifecycle import Deletion
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict, WrongState
from control_plane.domain.names import show
from control_plane.services.ports import Ports

_FORGETTABLE = ("active", "suspended", "archived")


async def forget_server(db: Connection, caller: Caller, name: str) -> int:
    """Take a server that is gone for good out of the fleet, with all that was on it.

    Returns how many databases were on record there.

    Raises:
        Conflict: tenants are on it, or it was reached a moment ago.
        NotFound: there is none.
    """
    server = await servers.find(db, name)
    held = await databases.on_server(db, server.id)
    primaries = sum(one.purpose == "primary" for one in held)
    if primaries:
        raise Conflict(
            f"server {name} holds {primaries} tenants; first: tenantry restore SLUG --in-place "
            "--server OTHER --source-lost"
        )
    if server.reachable:
        raise Conflict(f"server {name} answers; empty it with: tenantry servers remove {name}")
    await recovery.end_work_on(db, server.id)
    for one in held:
        await databases.forget(db, one)
    await servers.remove(db, server)
    facts: dict[str, object] = {"databases": len(held)}
    await audit.record(db, caller, Entry("server.forget", name, facts=facts))
    return len(held)


async def forget_tenant(db: Connection, ports: Ports, caller: Caller, slug: str) -> int:
    """Mark a tenant as deleted that was destroyed after the backup that this catalog comes from.

    Returns how many databases were on record; what is left of them on a server is named by
    ``check``.

    Raises:
        Conflict: it has a key or a backup, so that it can be restored.
        WrongState: something is done to it, or it is in no state for this.
        NotFound: there is none.
    """
    tenant = await tenants.lock(db, (await tenants.find(db, slug)).id)
    if tenant.operation_id is not None or tenant.state not in _FORGETTABLE:
        raise WrongState(f"{slug} is {tenant.state}, or an operation works on it; wait for that")
    if await asyncio.to_thread(_has_key, ports.keystore, tenant.id):
        raise Conflict(f"{slug} has a key in the keystore; restore it, or tenantry tenants delete")
    newest = await backups.newest_complete(db, tenant.id)
    if newest is not None:
        shown = show("bk", newest.id)
        raise Conflict(f"{slug} has the backup {shown}; restore it, or tenantry tenants delete")
    held = await lifecycle.databases_of(db, tenant.id)
    for one in held:
        if one.purpose == "primary" or one.holds_place:
            await servers.release(db, one.server_id)
        await databases.forget(db, one)
    route = await routes.find(db, tenant.id)
    if route is not None:
        await routes.touch(db, route, "withdrawn")
    await lifecycle.mark_deleting(db, tenant.id, Deletion(0, 0, final_backup=False))
    await lifecycle.mark_objects_deleted(db, tenant.id)
    await tenant_keys.mark_destroyed(db, tenant.id)
    await lifecycle.mark_purged(db, tenant.id)
    await lifecycle.mark_deleted(db, tenant.id)
    facts: dict[str, object] = {"databases": len(held)}
    await audit.record(db, caller, Entry("tenant.forget", slug, tenant_id=tenant.id, facts=facts))
    return len(held)


def _has_key(keystore: Keystore | None, tenant_id: UUID) -> bool:
    """Whether a version of the tenant's key is there. Blocks."""
    return keystore is not None and any(True for _ in keystore.every(tenant_id))
