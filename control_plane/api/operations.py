"""Operations over HTTP: list, look, follow, cancel, retry."""

import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from control_plane.api.acceptance import LOCATION, accept
from control_plane.api.context import Asking, Reading, Writing, process_of
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, next_cursor, position
from control_plane.api.views import OperationPage, OperationView, operation_view
from control_plane.api.words import NAME_OR_ID
from control_plane.domain.errors import CatalogUnavailable
from control_plane.domain.operations import LIVE_STATES, Operation, OperationState
from control_plane.services import operations
from control_plane.services.changes import Changes

PING_SECONDS = 15.0
_EVENT = "operation"


class OperationController(Controller):
    """``{operation}`` is an ``op_`` id."""

    path = "/operations"
    tags = ("operations",)

    @get(operation_id="listOperations", responses=refusals(404))
    async def list_operations(
        self,
        asking: Reading,
        tenant: Annotated[str | None, QueryParameter(pattern=NAME_OR_ID)] = None,
        operation_state: Annotated[OperationState | None, QueryParameter(name="state")] = None,
        cursor: Cursor = None,
        limit: Limit = LIMIT,
    ) -> OperationPage:
        """Operations, newest first."""
        async with asking.ports.catalog.connection() as db:
            found = await operations.list_operations(
                db,
                asking.caller,
                tenant=tenant,
                state=operation_state,
                before=position(cursor),
                limit=limit,
            )
        return OperationPage(
            [operation_view(one) for one in found], next_cursor(found, limit, lambda o: o.id)
        )

    @get("/{operation:str}", operation_id="getOperation", responses=refusals(404))
    async def get_operation(self, operation: FromPath[str], asking: Reading) -> OperationView:
        """One operation with its steps."""
        return operation_view(await _find(asking, operation))

    @get(
        "/{operation:str}/events",
        operation_id="watchOperation",
        media_type="text/event-stream",
        responses=refusals(404),
        opt={"quiet": True},
    )
    async def watch_operation(
        self, operation: FromPath[str], asking: Reading, request: Request[Any, Any, Any]
    ) -> ServerSentEvent:
        """The operation now and at every change, as server-sent events, until it is over."""
        found = await _find(asking, operation)
        changes = process_of(request).changes
        return ServerSentEvent(_events(asking, changes, found, operation))

    @post(
        "/{operation:str}/cancel",
        operation_id="cancelOperation",
        status_code=202,
        responses=refusals(404, 409, 413),
        response_headers=[LOCATION],
    )
    async def cancel_operation(
        self, operation: FromPath[str], changing: Writing
    ) -> Response[OperationView]:
        """Stop an operation at its next step, while going back is still safe."""
        return await accept(
            changing, lambda db: operations.cancel_operation(db, changing.caller, operation)
        )

    @post(
        "/{operation:str}/retry",
        operation_id="retryOperation",
        status_code=202,
        responses=refusals(404, 409, 413),
        response_headers=[LOCATION],
    )
    async def retry_operation(
        self, operation: FromPath[str], changing: Writing
    ) -> Response[OperationView]:
        """Let a failed operation go on at the step that failed."""
        return await accept(
            changing, lambda db: operations.retry_operation(db, changing.caller, operation)
        )


async def _find(asking: Asking, shown_id: str) -> Operation:
    async with asking.ports.catalog.connection() as db:
        return await operations.find_operation(db, asking.caller, shown_id)


async def _events(
    asking: Asking, changes: Changes, operation: Operation, shown_id: str
) -> AsyncGenerator[ServerSentEventMessage, None]:
    """Snapshots that differ from the one before; a comment when there was nothing to say."""
    with changes.watch(operation.id) as changed:
        # Looked at again: a change before the watch began has told nobody.
        operation = await _look(asking, shown_id) or operation
        yield _event(operation)
        said_at = time.monotonic()
        while operation.state in LIVE_STATES:
            await changes.wait(changed, PING_SECONDS)
            newest = await _look(asking, shown_id) or operation
            if newest != operation:
                yield _event(newest)
                said_at = time.monotonic()
            elif time.monotonic() - said_at >= PING_SECONDS:
                yield ServerSentEventMessage(data=None, comment="ping")
                said_at = time.monotonic()
            operation = newest


async def _look(asking: Asking, shown_id: str) -> Operation | None:
    """The operation as it is now; ``None`` while the catalog is away, for it will come back."""
    try:
        return await _find(asking, shown_id)
    except CatalogUnavailable:
        return None


def _event(operation: Operation) -> ServerSentEventMessage:
    data = msgspec.json.encode(operation_view(operation)).decode()
    return ServerSentEventMessage(data=data, event=_EVENT)
