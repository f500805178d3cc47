"""What may be asked about bundles for customers: make one, look, get a link to one."""

import asyncio
import datetime as dt
from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.adapters.age_encryption import Recipient
from control_plane.catalog import audit, databases, exports, operations, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.exports import Export, NewExport
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid, NotFound, WrongState
from control_plane.domain.keys import may_see
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.services.backups import require_store
from control_plane.services.ports import Ports
from control_plane.services.showing import record_showing
from control_plane.services.tenants import find_tenant

KEEP_HOURS = 72
LINK_SECONDS = 900
# Somebody who leaves takes the data along: also in the grace of a deletion.
_EXPORTABLE = ("active", "suspended", "deleting")


class Link(msgspec.Struct, frozen=True):
    """A URL that shows one bundle to whoever has it, for a few minutes."""

    export: Export
    url: str
    expires_at: dt.datetime


async def request_export(
    db: Connection, ports: Ports, caller: Caller, slug: str, recipient: str, keep_hours: int
) -> Operation:
    """Make a bundle of all of a tenant's data, encrypted to ``recipient``.

    Raises:
        Invalid: the recipient is none.
        Conflict: no store is configured.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug)
    require_store(ports)
    Recipient(recipient)
    operation = await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["export"],
            subject=tenant.slug,
            actor=caller.principal.name,
            tenant_id=tenant.id,
        ),
    )
    await _require_data(db, tenant.id)
    export_id = clock.new_id()
    await exports.insert(
        db,
        NewExport(
            id=export_id,
            tenant_id=tenant.id,
            operation_id=operation.id,
            recipient=recipient,
            created_by=caller.principal.name,
            keep_hours=keep_hours,
        ),
    )
    facts: dict[str, object] = {"export": show("ex", export_id), "recipient": recipient}
    await audit.record(
        db, caller, Entry("tenant.export", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def find_export(db: Connection, caller: Caller, shown: str) -> Export:
    """The export with this ``ex_`` id, if the caller may know of its tenant.

    Raises:
        NotFound: there is none, or it is somebody else's: the answer is the same (S-24).
    """
    export = await exports.find(db, shown)
    if not may_see(caller.principal, export.tenant_id):
        raise NotFound(f"there is no export {shown!r}")
    return export


async def make_link(db: Connection, ports: Ports, caller: Caller, shown: str, seconds: int) -> Link:
    """A link to a bundle, with its audit event in the same transaction: show it after the commit.

    Raises:
        WrongState: the bundle is not ready, or expired, or its store has no links.
        CatalogUnavailable: the showing could not be recorded.
        NotFound, Conflict: see there.
    """
    export = await find_export(db, caller, shown)
    store = require_store(ports)
    left = (export.expires_at - clock.now()).total_seconds()
    if export.state != "ready" or export.object_key is None or left <= 0:
        state = "expired" if export.state == "ready" else export.state
        raise WrongState(f"export {shown} is {state}; only one that is ready has a link")
    seconds = min(seconds, LINK_SECONDS, max(1, int(left)))
    try:
        url = await asyncio.to_thread(store.link, export.object_key, seconds)
    except Invalid as error:
        where = f"take {export.object_key} from {store.url}"
        raise WrongState(f"{error.message}; {where}") from error
    tenant = await tenants.get(db, export.tenant_id)
    facts: dict[str, object] = {"export": shown, "seconds": seconds}
    entry = Entry("export.link", tenant.slug, tenant_id=tenant.id, facts=facts)
    await record_showing(db, caller, entry)
    return Link(export, url, clock.now() + dt.timedelta(seconds=seconds))


async def _require_data(db: Connection, tenant_id: UUID) -> None:
    """Look once the operation is recorded: before that, another one may still change the state."""
    tenant = await tenants.get(db, tenant_id)
    live = await databases.find_primary(db, tenant_id)
    if tenant.state not in _EXPORTABLE or live is None:
        remedy = (
            f"; unarchive it first: tenantry tenants unarchive {tenant.slug}"
            if tenant.state == "archived"
            else ""
        )
        raise WrongState(f"{tenant.slug} is {tenant.state} and has no database to export{remedy}")
