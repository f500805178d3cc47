"""Everything the catalog knows of one tenant, as of one moment."""

import datetime as dt

import msgspec

from control_plane.catalog import (
    audit,
    backup_ledger,
    databases,
    holds,
    moves,
    operations,
    replacements,
    servers,
)
from control_plane.catalog.audit import AuditEvent, Caller
from control_plane.catalog.backup_ledger import ListedBackup
from control_plane.catalog.databases import Database
from control_plane.catalog.holds import Hold
from control_plane.catalog.moves import Move
from control_plane.catalog.pool import Connection
from control_plane.domain.operations import Operation
from control_plane.domain.placement import Wish, refusal
from control_plane.domain.tenants import Tenant
from control_plane.services.ports import Ports
from control_plane.services.schedules import ShownSchedule, get_schedule
from control_plane.services.tenants import find_tenant

_OPERATIONS = 20
_EVENTS = 40
_BACKUPS = 5
_PICKED = 100
_TIMELINE = 30
# A request and its operation are written in one transaction.
_TOGETHER = dt.timedelta(seconds=0.5)


class Entry(msgspec.Struct, frozen=True):
    """One line of a tenant's story: an operation, or something that somebody asked for."""

    at: dt.datetime
    what: str
    who: str
    state: str
    detail: str
    operation: Operation | None = None


class Dossier(msgspec.Struct, frozen=True):
    """``schedule`` is missing for a tenant that is gone; a restore replaced ``previous``."""

    tenant: Tenant
    database: Database | None
    live: Operation | None
    newest: Operation | None
    schedule: ShownSchedule | None
    backups: list[ListedBackup]
    move: Move | None
    previous: Database | None
    hold: Hold | None
    timeline: list[Entry]


class Candidate(msgspec.Struct, frozen=True):
    """A server that a tenant could move to, or the reason why not; both in words."""

    name: str
    fits: bool
    reason: str


async def look_at_tenant(
    db: Connection, ports: Ports, caller: Caller, slug: str, *, audited: bool
) -> Dossier:
    """The dossier of a tenant; ``audited``: with what the audit log says of it.

    Raises:
        NotFound: there is no such tenant.
    """
    tenant = await find_tenant(db, caller, slug)
    gone = tenant.state == "deleted"
    done = await operations.page(db, before=None, limit=_OPERATIONS, tenant_id=tenant.id)
    events: list[AuditEvent] = []
    if audited:
        events = await audit.page(db, before=None, limit=_EVENTS, tenant_id=tenant.id)
    return Dossier(
        tenant=tenant,
        database=await databases.find_primary(db, tenant.id),
        live=next((one for one in done if one.live), None),
        newest=done[0] if done else None,
        schedule=None if gone else await get_schedule(db, ports, caller, tenant.slug),
        backups=await backup_ledger.page_of_backups(db, tenant.id, before=None, limit=_BACKUPS),
        move=await moves.open_one(db, tenant.id),
        previous=await replacements.previous(db, tenant.id),
        hold=await holds.find(db, tenant.id),
        timeline=_timeline(done, events),
    )


async def restorable(db: Connection, tenant: Tenant) -> list[ListedBackup]:
    """The complete backups of a tenant, the youngest data first."""
    found = await backup_ledger.page_of_backups(db, tenant.id, before=None, limit=_PICKED)
    return [one for one in found if one.state == "complete"]


async def candidates(db: Connection, tenant: Tenant) -> list[Candidate]:
    """Every server as a place to move to, those that fit first, the emptiest first."""
    live = await databases.primary(db, tenant.id)
    snapshot = await servers.capacities(db, live.template, live.template_fingerprint)
    others = [one for one in snapshot if one.id != live.server_id]
    wish = Wish(tenant.tier)
    ranked = sorted(
        others, key=lambda s: (refusal(s, wish) is not None, s.placed / s.capacity, s.name)
    )
    return [
        Candidate(
            one.name,
            refusal(one, wish) is None,
            f"Postgres {one.major}, region {one.region or 'none'}, "
            f"{one.placed} of {one.capacity} places taken"
            + (f"; {words}" if (words := refusal(one, wish)) else ""),
        )
        for one in ranked
    ]


def _timeline(done: list[Operation], events: list[AuditEvent]) -> list[Entry]:
    entries = [
        Entry(
            at=one.created_at,
            what=one.kind,
            who=one.actor,
            state=one.state,
            detail=one.error_message or "",
            operation=one,
        )
        for one in done
    ]
    entries += [
        Entry(one.at, one.action, one.actor, one.outcome, one.reason or "")
        for one in events
        if not any(_asks_for(one, operation) for operation in done)
    ]
    return sorted(entries, key=lambda entry: entry.at, reverse=True)[:_TIMELINE]


def _asks_for(event: AuditEvent, operation: Operation) -> bool:
    """Whether the event is the request that recorded the operation: one line tells both."""
    apart = abs(event.at - operation.created_at)
    return event.outcome == "allowed" and event.actor == operation.actor and apart < _TOGETHER
