"""The audit log over HTTP."""

import datetime as dt
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.params import FromPath, QueryParameter

from control_plane.api.context import Reading
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Limit
from control_plane.api.words import AUDIT_CURSOR, NAME_OR_ID
from control_plane.catalog.audit import AuditEvent, AuditSearch, Outcome
from control_plane.domain.errors import Invalid
from control_plane.domain.names import show
from control_plane.services.audit import list_audit
from control_plane.services.audit_seals import verify

_MOMENT = {"format": "date-time"}


class AuditView(msgspec.Struct, frozen=True):
    """Who did what to what, when, from where, and whether it was allowed."""

    id: str
    at: dt.datetime
    actor: str
    action: str
    outcome: Outcome
    subject: str
    tenant_id: str | None
    address: str | None
    request_id: str | None
    reason: str | None
    facts: dict[str, Any]


class AuditPage(msgspec.Struct, frozen=True):
    items: list[AuditView]
    next_cursor: str | None


def audit_view(event: AuditEvent) -> AuditView:
    """The JSON of an audit event."""
    return AuditView(
        id=str(event.seq),
        at=event.at,
        actor=event.actor,
        action=event.action,
        outcome=event.outcome,
        subject=event.subject,
        tenant_id=show("tn", event.tenant_id) if event.tenant_id is not None else None,
        address=event.address,
        request_id=event.correlation_id,
        reason=event.reason,
        facts=event.facts,
    )


class SealVerification(msgspec.Struct, frozen=True):
    """What recomputing the chain of a tenant's audit log showed.

    ``rows`` are those of ``blocks``; ``anchored`` blocks are kept by the control plane as well, and
    ``waiting`` rows are not sealed yet. ``differences`` name the block and what is wrong with it.
    """

    tenant: str
    verified: bool
    blocks: int
    rows: int
    anchored: int
    waiting: int
    differences: list[str]


class AuditController(Controller):
    """Read only: every request writes its own events."""

    path = "/audit"
    tags = ("access",)

    @get(operation_id="listAudit", responses=refusals(404))
    async def list_audit(
        self,
        asking: Reading,
        tenant: Annotated[str | None, QueryParameter(pattern=NAME_OR_ID)] = None,
        since: Annotated[str | None, QueryParameter(schema_extra=_MOMENT)] = None,
        cursor: Annotated[str | None, QueryParameter(pattern=AUDIT_CURSOR)] = None,
        limit: Limit = LIMIT,
    ) -> AuditPage:
        """Audit events, newest first; ``since`` is a time with its zone (RFC 3339)."""
        async with asking.ports.catalog.connection() as db:
            found = await list_audit(
                db,
                asking.caller,
                tenant=tenant,
                search=AuditSearch(since=_moment(since) if since is not None else None),
                before=int(cursor) if cursor is not None else None,
                limit=limit,
            )
        following = str(found[-1].seq) if len(found) == limit else None
        return AuditPage([audit_view(event) for event in found], following)


class AuditSealController(Controller):
    """The audit log inside a tenant's database, against its seals."""

    path = "/tenants/{tenant:str}/audit-seals"
    tags = ("access",)

    @get("/verification", operation_id="verifyAuditSeals", responses=refusals(404, 409))
    async def verify_audit_seals(self, tenant: FromPath[str], asking: Reading) -> SealVerification:
        """Recompute every sealed block from its rows and compare it with what was anchored."""
        found = await verify(asking.ports, asking.caller, tenant)
        return SealVerification(
            tenant=found.tenant,
            verified=not found.differences,
            blocks=found.blocks,
            rows=found.rows,
            anchored=found.anchored,
            waiting=found.waiting,
            differences=found.differences,
        )


def _moment(text: str) -> dt.datetime:
    """Stricter than the framework, which takes a bare number for seconds since 1970."""
    try:
        return msgspec.convert(text, dt.datetime)
    except msgspec.ValidationError as error:
        message = "give a time with its zone, for example 2026-01-31T08:00:00Z"
        raise Invalid(f"since: {message}", [{"field": "since", "message": message}]) from error
