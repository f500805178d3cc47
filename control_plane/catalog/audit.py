"""Audit events: who did what to what, when, from where; append-only (S-48)."""

import datetime as dt
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.keys import Principal

Outcome = Literal["allowed", "denied", "failed"]


class Caller(msgspec.Struct, frozen=True):
    """The principal of a request and where the request came from."""

    principal: Principal
    address: str | None = None
    correlation_id: str | None = None


class Entry(msgspec.Struct, frozen=True):
    """What to record; ``facts`` never holds a secret."""

    action: str
    subject: str
    tenant_id: UUID | None = None
    outcome: Outcome = "allowed"
    reason: str | None = None
    facts: dict[str, object] = {}


class AuditEvent(msgspec.Struct, frozen=True):
    """One line of the audit log."""

    seq: int
    at: dt.datetime
    actor: str
    action: str
    outcome: Outcome
    subject: str
    tenant_id: UUID | None
    address: str | None
    correlation_id: str | None
    reason: str | None
    facts: dict[str, object]


async def record(db: Connection, caller: Caller, entry: Entry) -> None:
    """Append one event for a request of ``caller``."""
    await db.execute(
        """INSERT INTO audit_events (actor, key_id, action, outcome, subject, tenant_id,
                                     address, correlation_id, reason, facts)
           VALUES ($1, $2, $3, $4, $5, $6, $7::text::inet, $8, $9, $10)""",
        caller.principal.name,
        caller.principal.key_id,
        entry.action,
        entry.outcome,
        entry.subject,
        entry.tenant_id,
        caller.address,
        caller.correlation_id,
        entry.reason,
        entry.facts,
    )


async def record_system(db: Connection, entry: Entry) -> None:
    """Append one event for something the system did by itself."""
    await db.execute(
        """INSERT INTO audit_events (actor, action, outcome, subject, tenant_id, facts)
           VALUES ('system', $1, $2, $3, $4, $5)""",
        entry.action,
        entry.outcome,
        entry.subject,
        entry.tenant_id,
        entry.facts,
    )


class AuditSearch(msgspec.Struct, frozen=True):
    """Which events; every part that is given must fit.

    ``actor`` and ``action`` are beginnings; ``since`` is the first moment and ``until`` the first
    that is too late.
    """

    actor: str = ""
    action: str = ""
    outcome: Outcome | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


EVERYTHING = AuditSearch()


async def page(
    db: Connection,
    *,
    before: int | None,
    limit: int,
    tenant_id: UUID | None = None,
    search: AuditSearch = EVERYTHING,
) -> list[AuditEvent]:
    """Up to ``limit`` events, newest first, older than the event ``before``."""
    rows = await db.fetch(
        """SELECT seq, at, actor, action, outcome, subject, tenant_id, host(address) AS address,
                  correlation_id, reason, facts
           FROM audit_events
           WHERE ($1::bigint IS NULL OR seq < $1)
             AND ($3::uuid IS NULL OR tenant_id = $3)
             AND ($4::timestamptz IS NULL OR at >= $4)
             AND ($5::timestamptz IS NULL OR at < $5)
             AND ($6 = '' OR actor ^@ $6) AND starts_with(action, $7)
             AND ($8::text IS NULL OR outcome = $8)
           ORDER BY seq DESC LIMIT $2""",
        before,
        limit,
        tenant_id,
        search.since,
        search.until,
        search.actor,
        search.action,
        search.outcome,
    )
    return [AuditEvent(**dict(row)) for row in rows]
