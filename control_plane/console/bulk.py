"""New tenants by the list: checked line by line first, then one operation for each good line."""

import hashlib
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.datastructures import UploadFile
from litestar.params import FromPath
from litestar.response import Redirect, ServerSentEvent
from msgspec import Meta

from control_plane.catalog import operations
from control_plane.catalog.idempotency import Fingerprint, SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.console.access import needs
from control_plane.console.forms import fields_of, read_form, trouble_of
from control_plane.console.rendering import fragment, page
from control_plane.console.spreadsheets import csv_answer
from control_plane.console.streams import Shown, live
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import NotFound, TenantryError
from control_plane.domain.names import parse
from control_plane.domain.operations import Operation
from control_plane.domain.tenant_lines import (
    BYTES_MOST,
    COLUMNS,
    LINES_MOST,
    TenantLine,
    decode_list,
    read_lines,
    write_lines,
)
from control_plane.domain.tenants import TIERS
from control_plane.services.bulk import judge, told, wanted_of
from control_plane.services.requests import Effect, perform, recall
from control_plane.services.tenants import create_tenant

# A list travels as a file, and once more inside of the form that confirms it.
_BODY_BYTES = 8 * BYTES_MOST
_REST_SECONDS = 0.5
_KIND = hashlib.sha256(b"console: new tenants by the list").digest()


class ListForm(msgspec.Struct, frozen=True, kw_only=True):
    """The good lines of a list that was checked."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)]
    list: str


class Begun(msgspec.Struct, frozen=True):
    """What came of one line: an operation, or why there is none."""

    name: str
    slug: str
    operation: str | None
    problem: str | None


class BulkPages(Controller):
    """``{batch}`` is the key of the form that began it; only who sent it finds it."""

    path = "/provision/bulk"

    @get(opt=needs("createTenant"))
    async def show(self, request: AnyRequest) -> Response[str]:
        """Where a list is given."""
        return _form(request)

    @post("/check", opt=needs("createTenant"), request_max_body_size=_BODY_BYTES, status_code=200)
    async def check(self, request: AnyRequest, visit: Visiting) -> Response[str]:
        """What would come of every line; nothing is begun."""
        fields = await fields_of(request)
        try:
            lines = read_lines(await _given(request, fields))
        except TenantryError as error:
            return _form(request, fields.get("list", ""), error)
        verdicts = await judge(visit.ports, visit.caller, lines)
        good = [verdict.line for verdict in verdicts if verdict.good]
        return page(
            request, "bulk_checked.html", verdicts=verdicts, good=good, text=write_lines(good)
        )

    @post(opt=needs("createTenant"), request_max_body_size=_BODY_BYTES)
    async def begin(self, request: AnyRequest, visit: Visiting) -> Response[Any]:
        """One operation for each line."""
        fields = await fields_of(request)
        try:
            form = read_form(fields, ListForm)
            lines = read_lines(form.list)
            rows = [await _begin(visit, form.form_key, line) for line in lines]
            await _keep(visit, form.form_key, rows)
        except TenantryError as error:
            return _form(request, fields.get("list", ""), error)
        return Redirect(f"/console/provision/bulk/{form.form_key}", status_code=303)

    @get("/{batch:str}", opt=needs("createTenant"))
    async def show_batch(
        self, batch: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """How far each line is."""
        return page(request, "batch.html", batch=batch, **await _facts(visit, batch))

    @get("/{batch:str}/events", opt={**needs("createTenant"), "quiet": True})
    async def follow(self, batch: FromPath[str], visit: Visiting) -> ServerSentEvent:
        """The same again at every change, until all are over."""
        await _facts(visit, batch)

        async def look() -> Shown:
            facts = await _facts(visit, batch)
            return Shown(fragment(visit, "_batch.html", **facts), last=not facts["live"])

        return live(visit, visit.desk.changes.watch_all(), look, rest_seconds=_REST_SECONDS)

    @get("/{batch:str}/results", opt=needs("createTenant"))
    async def export(self, batch: FromPath[str], visit: Visiting) -> Response[str]:
        """The same as a file."""
        facts = await _facts(visit, batch)
        header = ("name", "slug", "state", "operation", "problem")
        rows = [
            (
                row.name,
                row.slug,
                operation.state if operation else "not begun",
                row.operation,
                row.problem or (operation.error_message if operation else None),
            )
            for row, operation in facts["rows"]
        ]
        return csv_answer("new-tenants.csv", [header, *rows])


def _form(request: AnyRequest, text: str = "", error: TenantryError | None = None) -> Response[str]:
    trouble = trouble_of(error) if error else None
    return page(
        request,
        "bulk.html",
        trouble.status if trouble else 200,
        text=text,
        trouble=trouble,
        columns=COLUMNS,
        tiers=TIERS,
        most=LINES_MOST,
        kib=BYTES_MOST // 1024,
    )


async def _given(request: AnyRequest, fields: dict[str, str]) -> str:
    """The file, if one was chosen, else what was pasted."""
    file = (await request.form()).get("file")
    if isinstance(file, UploadFile) and file.filename:
        return decode_list(await file.read(BYTES_MOST + 1))
    return fields.get("list", "")


async def _begin(visit: Visit, key: str, line: TenantLine) -> Begun:
    """Begin one line, at most once; what stands against it stops no other line."""
    try:
        wanted = wanted_of(line)
        operation = await visit.begin(
            lambda db: create_tenant(db, visit.ports, visit.caller, wanted),
            f"{key}/{line.slug}",
            {column: getattr(line, column) for column in COLUMNS},
        )
    except TenantryError as error:
        field, message = told(error)
        problem = f"{field}: {message}" if field else message
        return Begun(line.name, line.slug, None, problem)
    return Begun(line.name, line.slug, operation, None)


async def _keep(visit: Visit, key: str, rows: list[Begun]) -> None:
    """Remember what was begun, under the key of its form."""

    async def effect(db: Connection) -> Effect:
        del db
        return Effect(SavedAnswer(202, {"rows": msgspec.to_builtins(rows)}))

    await perform(visit.ports, _fingerprint(visit, key), effect)


async def _facts(visit: Visit, batch: str) -> dict[str, Any]:
    saved = await recall(visit.ports, _fingerprint(visit, batch))
    if saved is None:
        raise NotFound("there is no such list of yours, or it was begun too long ago")
    rows = msgspec.convert(saved.body["rows"], list[Begun])
    ids = {row.slug: parse("op", row.operation) for row in rows if row.operation}
    async with visit.ports.catalog.connection() as db:
        found = await operations.several(db, [one for one in ids.values() if one])
    paired = [(row, _of(found, ids.get(row.slug))) for row in rows]
    begun = [operation for _, operation in paired if operation is not None]
    return {
        "rows": paired,
        "live": any(operation.live for operation in begun),
        "ready": sum(operation.state == "succeeded" for operation in begun),
    }


def _of(found: dict[Any, Operation], key: object) -> Operation | None:
    return found.get(key) if key is not None else None


def _fingerprint(visit: Visit, key: str) -> Fingerprint:
    return Fingerprint(visit.caller.principal.key_id, key, _KIND)
