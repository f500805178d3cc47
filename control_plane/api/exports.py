"""Bundles for customers over HTTP: make one, list them, get a link to one."""

import datetime as dt
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Reading, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, next_cursor, position
from control_plane.api.views import OperationView
from control_plane.api.words import AGE_RECIPIENT
from control_plane.catalog import exports as catalog_exports
from control_plane.catalog.exports import Export, ExportState
from control_plane.catalog.pool import Connection
from control_plane.domain.names import show
from control_plane.services import exports
from control_plane.services.exports import KEEP_HOURS, LINK_SECONDS, Link
from control_plane.services.requests import Effect
from control_plane.services.tenants import find_tenant

_LONGEST_KEEPING_HOURS = 7 * 24


class ExportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who can open the bundle, and after how long it is deleted."""

    recipient: Annotated[str, Meta(pattern=AGE_RECIPIENT)]
    keep_hours: Annotated[int, Meta(ge=1, le=_LONGEST_KEEPING_HOURS)] = KEEP_HOURS


class LinkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long the link works."""

    seconds: Annotated[int, Meta(ge=1, le=LINK_SECONDS)] = LINK_SECONDS


class ExportView(msgspec.Struct, frozen=True):
    """One bundle. ``sha256`` is hex, of the encrypted file; ``recipient`` can open it.

    It is deleted at ``expires_at``, which is done at ``deleted_at``.
    """

    id: str
    tenant: str
    operation: str
    state: ExportState
    recipient: str
    stored_bytes: int | None
    sha256: str | None
    tables: int | None
    rows: int | None
    created_by: str
    created_at: dt.datetime
    finished_at: dt.datetime | None
    expires_at: dt.datetime
    deleted_at: dt.datetime | None
    problem: str | None


class ExportPage(msgspec.Struct, frozen=True):
    items: list[ExportView]
    next_cursor: str | None


class LinkView(msgspec.Struct, frozen=True):
    """Where the bundle can be fetched, without a key. ``url`` is shown once: repeats have null."""

    export: str
    url: str | None
    expires_at: dt.datetime
    stored_bytes: int
    sha256: str
    note: str | None


class TenantExportController(Controller):
    """The bundles of one tenant."""

    path = "/tenants/{tenant:str}/exports"
    tags = ("backups",)

    @post(
        operation_id="createExport",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def create_export(
        self,
        tenant: FromPath[str],
        data: JSONBody[ExportBody],
        changing: Writing,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Make a bundle of all of a tenant's data, which only the recipient can open."""
        return await accept_or_rehearse(
            changing,
            lambda db: exports.request_export(
                db, changing.ports, changing.caller, tenant, data.recipient, data.keep_hours
            ),
            dry_run=dry_run,
        )

    @get(operation_id="listExports", responses=refusals(404))
    async def list_exports(
        self,
        tenant: FromPath[str],
        asking: Reading,
        cursor: Cursor = None,
        limit: Limit = LIMIT,
    ) -> ExportPage:
        """The bundles of a tenant, newest first."""
        async with asking.ports.catalog.connection() as db:
            known = await find_tenant(db, asking.caller, tenant)
            found = await catalog_exports.page(db, known.id, after=position(cursor), limit=limit)
        items = [export_view(export) for export in found]
        return ExportPage(items, next_cursor(found, limit, lambda export: export.id))


class ExportController(Controller):
    """``{export}`` is an ``ex_`` id."""

    path = "/exports"
    tags = ("backups",)

    @post(
        "/{export:str}/links",
        operation_id="createExportLink",
        status_code=200,
        responses=refusals(404, 409, 413),
    )
    async def create_link(
        self,
        export: FromPath[str],
        changing: Writing,
        data: JSONBody[LinkBody | None] = None,
    ) -> Response[LinkView]:
        """A link to the bundle that works for minutes. Every showing is in the audit log first."""
        wanted = data or LinkBody()
        shown: list[Link] = []

        async def carry_out(db: Connection) -> Effect:
            link = await exports.make_link(
                db, changing.ports, changing.caller, export, wanted.seconds
            )
            shown.append(link)
            return effect(200, link_view(link, hidden=True))

        saved = await changing.perform(carry_out)
        response: Response[Any] = (
            Response(link_view(shown[0], hidden=False)) if shown else answer(saved, LinkView)
        )
        response.headers["Cache-Control"] = "no-store"
        return response


def export_view(export: Export) -> ExportView:
    """The JSON of an export."""
    return ExportView(
        id=show("ex", export.id),
        tenant=show("tn", export.tenant_id),
        operation=show("op", export.operation_id),
        state=export.state,
        recipient=export.recipient,
        stored_bytes=export.stored_bytes,
        sha256=export.sha256.hex() if export.sha256 is not None else None,
        tables=export.tables,
        rows=export.rows,
        created_by=export.created_by,
        created_at=export.created_at,
        finished_at=export.finished_at,
        expires_at=export.expires_at,
        deleted_at=export.deleted_at,
        problem=export.problem,
    )


def link_view(link: Link, *, hidden: bool) -> LinkView:
    """The JSON of a link; ``hidden`` is how it is kept for repeats: without the URL."""
    note = "already shown once under this Idempotency-Key; ask again with a new one"
    return LinkView(
        export=show("ex", link.export.id),
        url=None if hidden else link.url,
        expires_at=link.expires_at,
        stored_bytes=link.export.stored_bytes or 0,
        sha256=(link.export.sha256 or b"").hex(),
        note=note if hidden else None,
    )
