"""Answering a request for long work: 202 with the operation, or what a dry run would do."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter

from control_plane.api.context import Changing, answer, effect
from control_plane.api.views import OperationView, RehearsalView, operation_view, rehearsal_view
from control_plane.catalog import databases, servers, tenants
from control_plane.catalog.pool import Connection
from control_plane.domain.names import parse
from control_plane.domain.operations import Operation
from control_plane.domain.tenants import Tenant
from control_plane.services.rehearsal import rehearse
from control_plane.services.requests import Effect

DryRun: TypeAlias = Annotated[
    bool, QueryParameter(description="Answer with what would be done, and change nothing")
]
LOCATION = ResponseHeader(
    name="Location",
    value="/v1/operations/op_…",
    description="Where to look at the operation",
    documentation_only=True,
)
REHEARSED = {
    200: ResponseSpec(
        data_container=RehearsalView,
        description="What would be done (dry_run); nothing was changed",
        generate_examples=False,
    )
}
Work: TypeAlias = Callable[[Connection], Awaitable[Operation]]


async def accept(changing: Changing, work: Work) -> Response[Any]:
    """Let ``work`` record an operation and answer with it."""

    async def carry_out(db: Connection) -> Effect:
        operation = await work(db)
        return effect(202, operation_view(operation), operation)

    return answer(await changing.perform(carry_out), OperationView)


async def accept_or_rehearse(changing: Changing, work: Work, *, dry_run: bool) -> Response[Any]:
    """Like ``accept``; a dry run does everything ``work`` does, tells it, and takes it back."""
    if not dry_run:
        return await accept(changing, work)

    async def try_out(db: Connection) -> RehearsalView:
        operation = await work(db)
        return rehearsal_view(operation, await _created(db, operation))

    return Response(await rehearse(changing.ports, try_out), status_code=200)


async def _created(db: Connection, operation: Operation) -> Tenant | None:
    """The tenant that the operation would make, on the server it would be made on."""
    if operation.tenant_id is None or operation.kind not in ("provision", "restore_beside"):
        return None
    tenant = await tenants.get(db, operation.tenant_id)
    scratch_id = parse("db", str(operation.input.get("scratch")))
    if scratch_id is None:
        return tenant
    server = await servers.get(db, (await databases.get(db, scratch_id)).server_id)
    return msgspec.structs.replace(tenant, server=server.name)
