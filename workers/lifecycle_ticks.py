"""What beat asks for at the end of lives: deletions whose time has come, exports that expire.

Every tick may run late, twice or not at all; each only does what is due now.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from control_plane.adapters.object_stores import clearing
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import audit, exports, lifecycle, tenants
from control_plane.catalog.audit import Entry
from control_plane.catalog.exports import Export
from control_plane.domain.backup_invariants import GARBAGE_AFTER
from control_plane.domain.backups import EXPORTS_PREFIX, export_folder
from control_plane.domain.errors import Conflict, TenantryError
from control_plane.domain.names import show
from control_plane.services.backup_planning import catalog_time
from control_plane.services.deleting import begin_ending
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_BEGUN_AT_ONCE = 20
_EXPORTS_AT_ONCE = 50
_AFTER_FAILURE_MINUTES = 10


async def end_deletions(ports: Ports) -> None:
    """Begin to drop databases whose grace is over, and to destroy what was kept after that."""
    async with ports.catalog.connection() as db:
        due = await lifecycle.due(
            db, after_failure_minutes=_AFTER_FAILURE_MINUTES, limit=_BEGUN_AT_ONCE
        )
    for tenant_id, kind in due:
        try:
            async with ports.catalog.transaction() as db:
                operation = await begin_ending(db, tenant_id, kind)
        except Conflict:
            continue
        await ports.doorbell.ring(operation.id, operation.queue)


async def delete_expired_exports(ports: Ports) -> None:
    """Delete the bundles whose time is over, and what failed exports left in the store."""
    if ports.store is None:
        return
    async with ports.catalog.connection() as db:
        expired = await exports.expired(db, limit=_EXPORTS_AT_ONCE)
    for export in expired:
        try:
            await _delete(ports, ports.store, export)
        except TenantryError as error:
            _log.warning("export_not_deleted", export=show("ex", export.id), error=error.message)


async def delete_stray_bundles(ports: Ports) -> None:
    """Delete what workers that were given up on have put into the store, a day later."""
    store = ports.store
    if store is None:
        return
    before = await catalog_time(ports) - GARBAGE_AFTER
    found = await asyncio.to_thread(lambda: list(store.list(EXPORTS_PREFIX)))
    async with ports.catalog.connection() as db:
        strays = await exports.strays(db, [one.key for one in found if one.modified_at < before])
    await asyncio.to_thread(store.delete, strays)


async def _delete(ports: Ports, store: ObjectStore, export: Export) -> None:
    await asyncio.to_thread(clearing.clear, store, export_folder(export.tenant_id, export.id))
    async with ports.catalog.transaction() as db:
        await exports.mark_deleted(db, export.id)
        tenant = await tenants.get(db, export.tenant_id)
        facts: dict[str, object] = {"export": show("ex", export.id), "state": export.state}
        entry = Entry("export.delete", tenant.slug, tenant_id=tenant.id, facts=facts)
        await audit.record_system(db, entry)


TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {
    tick.__name__: tick for tick in (end_deletions, delete_expired_exports, delete_stray_bundles)
}
