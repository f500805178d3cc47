"""Reading the audit log."""

import datetime as dt

from msgspec.structs import replace

from control_plane.catalog import audit
from control_plane.catalog.audit import AuditEvent, AuditSearch, Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Invalid
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant


async def list_audit(
    db: Connection,
    caller: Caller,
    *,
    tenant: str | None,
    search: AuditSearch,
    before: int | None,
    limit: int,
) -> list[AuditEvent]:
    """Events, newest first.

    Raises:
        NotFound: there is no such tenant.
        Invalid: a moment has no zone, or is outside of the calendar.
    """
    tenant_id = (await find_tenant(db, caller, tenant)).id if tenant is not None else None
    in_utc = replace(
        search, since=_in_utc("since", search.since), until=_in_utc("until", search.until)
    )
    return await audit.page(db, before=before, limit=limit, tenant_id=tenant_id, search=in_utc)


async def record_export(db: Connection, caller: Caller, search: dict[str, object]) -> None:
    """Note that somebody takes events along, and which."""
    await audit.record(db, caller, Entry("audit.export", "audit", facts=search))


async def record_denial(
    ports: Ports, caller: Caller, *, action: str, subject: str, reason: str
) -> None:
    """Note that something was asked for and refused.

    Raises:
        CatalogUnavailable: it could not be noted.
    """
    async with ports.catalog.connection() as db:
        entry = Entry(action, subject, outcome="denied", reason=reason)
        await audit.record(db, caller, entry)


def _in_utc(field: str, moment: dt.datetime | None) -> dt.datetime | None:
    """A time without its zone would mean something else to everybody."""
    if moment is None:
        return None
    try:
        in_utc = moment.astimezone(dt.UTC) if moment.tzinfo is not None else None
    except OverflowError:
        in_utc = None
    if in_utc is None:
        message = "give a time with its zone, for example 2026-01-31T08:00:00Z"
        raise Invalid(f"{field}: {message}", [{"field": field, "message": message}])
    return in_utc
