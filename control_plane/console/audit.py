"""The audit log: searched, and taken along as a file."""

import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec
from litestar import Controller, Response, get
from litestar.params import QueryParameter
from litestar.response import Stream

from control_plane.catalog.audit import AuditEvent, AuditSearch, Outcome
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, trouble_of
from control_plane.console.rendering import page
from control_plane.console.spreadsheets import MARK, csv_headers, csv_rows
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.domain.names import show
from control_plane.services.audit import list_audit, record_export

PAGE = 100
_AT_ONCE = 1000
_OUTCOMES: tuple[Outcome, ...] = ("allowed", "denied", "failed")
_COLUMNS = (
    "id",
    "at",
    "actor",
    "action",
    "outcome",
    "subject",
    "tenant_id",
    "address",
    "request_id",
    "reason",
    "facts",
)
Words = Annotated[str, QueryParameter(max_length=200)]


class Typed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The search as it was typed; times are local to ``zone``."""

    tenant: str = ""
    actor: str = ""
    action: str = ""
    outcome: str = ""
    since: str = ""
    until: str = ""
    zone: str = ""

    @property
    def search(self) -> AuditSearch:
        """What it means.

        Raises:
            Invalid: a time or its zone cannot be read.
        """
        return AuditSearch(
            actor=self.actor,
            action=self.action,
            outcome=next((one for one in _OUTCOMES if one == self.outcome), None),
            since=_moment("since", self.since, self.zone),
            until=_moment("until", self.until, self.zone),
        )

    def url(self, path: str, **more: str) -> str:
        """The same search elsewhere."""
        query = {**msgspec.to_builtins(self), **more}
        return path + (f"?{urlencode(query)}" if query else "")


class AuditPages(Controller):
    """Read only: whatever is done writes its own events."""

    path = "/audit"

    @get(opt=needs("listAudit"))
    async def search(
        self,
        request: AnyRequest,
        visit: Visiting,
        before: Annotated[str, QueryParameter(pattern=r"^[0-9]{0,18}$")] = "",
    ) -> Response[str]:
        """Events, newest first."""
        typed = _typed(request)
        found: list[AuditEvent] = []
        trouble: Trouble | None = None
        try:
            found = await _page(visit, typed, int(before) if before else None, PAGE)
        except TenantryError as error:
            trouble = trouble_of(error)
        more = typed.url("/console/audit", before=str(found[-1].seq)) if found else None
        return page(
            request,
            "audit.html",
            trouble.status if trouble else 200,
            events=found,
            typed=typed,
            outcomes=_OUTCOMES,
            trouble=trouble,
            next_url=more if len(found) == PAGE else None,
            first_url=typed.url("/console/audit") if before else None,
            export_url=typed.url("/console/audit/export"),
        )

    @get("/export", opt=needs("listAudit"))
    async def export(self, request: AnyRequest, visit: Visiting) -> Stream:
        """Every event of the search as a file; that it was taken is an event, too."""
        typed = _typed(request)
        # What is wrong with the search is told before the file begins.
        first = await _page(visit, typed, None, _AT_ONCE)
        async with visit.ports.catalog.transaction() as db:
            await record_export(db, visit.caller, dict(msgspec.to_builtins(typed)))
        headers = csv_headers("audit.csv")
        return Stream(_lines(visit, typed, first), media_type="text/csv", headers=headers)


async def _lines(visit: Visit, typed: Typed, found: list[AuditEvent]) -> AsyncIterator[str]:
    yield MARK + csv_rows([_COLUMNS])
    while found:
        yield csv_rows(_cells(event) for event in found)
        if len(found) < _AT_ONCE:
            return
        found = await _page(visit, typed, found[-1].seq, _AT_ONCE)


def _cells(event: AuditEvent) -> tuple[object, ...]:
    return (
        event.seq,
        event.at.isoformat(),
        event.actor,
        event.action,
        event.outcome,
        event.subject,
        show("tn", event.tenant_id) if event.tenant_id else None,
        event.address,
        event.correlation_id,
        event.reason,
        json.dumps(event.facts, ensure_ascii=False, default=str),
    )


async def _page(visit: Visit, typed: Typed, before: int | None, limit: int) -> list[AuditEvent]:
    search = typed.search
    async with visit.ports.catalog.connection() as db:
        return await list_audit(
            db,
            visit.caller,
            tenant=typed.tenant or None,
            search=search,
            before=before,
            limit=limit,
        )


def _typed(request: AnyRequest) -> Typed:
    given: dict[str, Any] = {
        name: str(request.query_params.get(name, "")).strip()[:200]
        for name in Typed.__struct_fields__
    }
    return Typed(**given)


def _moment(field: str, text: str, zone: str) -> dt.datetime | None:
    """A local time of the viewer's zone; UTC when the browser told none."""
    if not text:
        return None
    try:
        return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone or "UTC"))
    except (ValueError, OSError, KeyError) as error:
        message = "give a day and a time, for example 2026-01-31T08:00"
        raise Invalid(f"{field}: {message}", [{"field": field, "message": message}]) from error
