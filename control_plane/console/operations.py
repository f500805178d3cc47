"""Operations: what ran and runs, and each with its steps, live."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlencode

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect, ServerSentEvent
from msgspec import Meta

from control_plane.catalog import backups, servers
from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Connection
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.rendering import fragment, page
from control_plane.console.streams import Shown, live
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import NotFound, TenantryError
from control_plane.domain.names import parse, show
from control_plane.domain.operations import OPERATION_STATES, Operation, OperationState
from control_plane.services import operations
from control_plane.services.operations import cancel_refusal

PAGE = 50
Change: TypeAlias = Callable[[Connection, Caller, str], Awaitable[Operation]]


class OnceForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form of one button."""

    form_key: Annotated[str, Meta(min_length=16, max_length=64)]


class OperationPages(Controller):
    """``{operation}`` is an ``op_`` id."""

    path = "/operations"

    @get(opt=needs("listOperations"))
    async def list_operations(
        self,
        request: AnyRequest,
        visit: Visiting,
        tenant: Annotated[str, QueryParameter(max_length=60)] = "",
        operation_state: Annotated[OperationState | str, QueryParameter(name="state")] = "",
        before: Annotated[str, QueryParameter(max_length=40)] = "",
    ) -> Response[str]:
        """Operations, newest first."""
        typed = {"tenant": tenant.strip(), "state": operation_state}
        try:
            found, trouble = await _page(visit, typed, before), None
        except NotFound as error:
            found, trouble = [], trouble_of(error)
        following = show("op", found[-1].id) if len(found) == PAGE else None
        return page(
            request,
            "operations.html",
            operations=found,
            typed=typed,
            trouble=trouble,
            states=OPERATION_STATES,
            next_url=_url(typed, following) if following else None,
            first_url=_url(typed, None) if before else None,
        )

    @get("/{operation:str}", opt=needs("getOperation"))
    async def show_operation(
        self, operation: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """One operation with its steps."""
        return await _show(operation, request, visit)

    @get("/{operation:str}/events", opt={**needs("watchOperation"), "quiet": True})
    async def follow(self, operation: FromPath[str], visit: Visiting) -> ServerSentEvent:
        """The operation again at every change, until it is over."""
        found = await _find(visit, operation)

        async def look() -> Shown:
            facts = await _facts(visit, operation)
            last = not facts["operation"].live
            return Shown(fragment(visit, "_operation.html", **facts), last=last)

        return live(visit, visit.desk.changes.watch(found.id), look)

    @post("/{operation:str}/retry", opt=needs("retryOperation"))
    async def retry(
        self, operation: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Let it go on at the step that failed."""
        return await _carry_out(operations.retry_operation, operation, request, visit)

    @get("/{operation:str}/cancel", opt=needs("cancelOperation"))
    async def plan_cancel(
        self, operation: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """What cancelling would do."""
        found = await _find(visit, operation)
        refusal = cancel_refusal(found)
        return page(request, "operation_cancel.html", operation=found, refusal=refusal)

    @post("/{operation:str}/cancel", opt=needs("cancelOperation"))
    async def cancel(
        self, operation: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Stop it at its next step, while going back is still safe."""
        return await _carry_out(operations.cancel_operation, operation, request, visit)


async def _carry_out(
    change: Change, operation: str, request: AnyRequest, visit: Visit
) -> Response[Any]:
    fields = await fields_of(request)
    try:
        form = read_form(fields, OnceForm)
        await visit.begin(
            lambda db: change(db, visit.caller, operation),
            form.form_key,
            {**fields, "operation": operation},
        )
    except TenantryError as error:
        return await _show(operation, request, visit, trouble_of(error))
    return _back(operation)


async def _page(visit: Visit, typed: dict[str, str], before: str) -> list[Operation]:
    async with visit.ports.catalog.connection() as db:
        return await operations.list_operations(
            db,
            visit.caller,
            tenant=typed["tenant"] or None,
            state=next((one for one in OPERATION_STATES if one == typed["state"]), None),
            before=parse("op", before),
            limit=PAGE,
        )


async def _show(
    operation: str, request: AnyRequest, visit: Visit, trouble: Trouble | None = None
) -> Response[str]:
    facts = await _facts(visit, operation)
    return page(
        request, "operation.html", trouble.status if trouble else 200, trouble=trouble, **facts
    )


async def _facts(visit: Visit, shown_id: str) -> dict[str, Any]:
    """The operation, where its links lead, and what may be done about it now."""
    found = await _find(visit, shown_id)
    async with visit.ports.catalog.connection() as db:
        server = await _server(db, found)
        backup = await _backup(db, found)
    return {
        "operation": found,
        "server": server,
        "backup": backup,
        "rollout": found.subject if found.kind == "rollout" else None,
        "retry_refusal": await _retry_refusal(visit, found),
        "cancel_refusal": cancel_refusal(found),
    }


async def _find(visit: Visit, shown_id: str) -> Operation:
    async with visit.ports.catalog.connection() as db:
        return await operations.find_operation(db, visit.caller, shown_id)


async def _retry_refusal(visit: Visit, operation: Operation) -> str | None:
    """Why a failed operation cannot go on: the request itself, taken back."""
    if operation.state != "failed" or not visit.may("retryOperation"):
        return None
    shown_id = show("op", operation.id)
    try:
        await visit.rehearse(lambda db: operations.retry_operation(db, visit.caller, shown_id))
    except TenantryError as error:
        return error.message
    return None


async def _server(db: Connection, operation: Operation) -> str | None:
    if operation.server_id is None:
        return None
    found = await servers.get(db, operation.server_id)
    return found.name if found.state != "removed" else None


async def _backup(db: Connection, operation: Operation) -> str | None:
    """The backup that it makes, or that it restores from."""
    made = await backups.of_operation(db, operation.id)
    if made is not None:
        return show("bk", made.id)
    used = operation.input.get("backup")
    return used if isinstance(used, str) and parse("bk", used) else None


def _back(operation: str) -> Redirect:
    return Redirect(f"/console/operations/{operation}", status_code=303)


def _url(typed: dict[str, str], before: str | None) -> str:
    query = {name: value for name, value in {**typed, "before": before}.items() if value}
    return "/console/operations" + (f"?{urlencode(query)}" if query else "")
