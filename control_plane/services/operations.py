"""What may be asked of an operation: to be seen, to stop, to go on after a failure."""

from uuid import UUID

from control_plane.catalog import audit, operations
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound
from control_plane.domain.keys import may_see
from control_plane.domain.names import parse
from control_plane.domain.operations import Operation, OperationState
from control_plane.domain.plans import PLANS, Kind
from control_plane.services.tenants import find_tenant


async def find_operation(db: Connection, caller: Caller, shown_id: str) -> Operation:
    """The operation, if this caller may know of it.

    Raises:
        NotFound: there is none, or it is of somebody else's tenant: the answer is the same.
    """
    operation_id = parse("op", shown_id)
    try:
        found = await operations.get(db, operation_id) if operation_id else None
    except NotFound:
        found = None
    if found is None or not may_see(caller.principal, found.tenant_id):
        raise NotFound(f"there is no operation {shown_id!r}")
    return found


async def list_operations(
    db: Connection,
    caller: Caller,
    *,
    tenant: str | None,
    state: OperationState | None,
    before: UUID | None,
    limit: int,
) -> list[Operation]:
    """Operations, newest first.

    Raises:
        NotFound: there is no such tenant.
    """
    tenant_id = (await find_tenant(db, caller, tenant)).id if tenant is not None else None
    return await operations.page(db, before=before, limit=limit, tenant_id=tenant_id, state=state)


async def cancel_operation(db: Connection, caller: Caller, shown_id: str) -> Operation:
    """Ask a live operation to stop at its next step boundary.

    Raises:
        NotFound, WrongState: see there.
    """
    operation = await find_operation(db, caller, shown_id)
    asked = await operations.request_cancel(db, operation.id, PLANS[_kind(operation)])
    await _record(db, caller, "operation.cancel", shown_id, asked)
    return asked


async def retry_operation(db: Connection, caller: Caller, shown_id: str) -> Operation:
    """Let a failed operation go on at the step that failed.

    Raises:
        NotFound, WrongState, OperationInProgress: see there.
    """
    operation = await find_operation(db, caller, shown_id)
    asked = await operations.request_retry(db, operation, PLANS[_kind(operation)])
    await _record(db, caller, "operation.retry", shown_id, asked)
    return asked


def cancel_refusal(operation: Operation) -> str | None:
    """Why a cancellation would be refused, as far as its steps tell; ``None`` when they do not."""
    if not operation.live:
        return f"it is {operation.state} already"
    if operation.state == "cancelling":
        return "it is being cancelled already"
    until = PLANS[_kind(operation)].cancellable_until
    begun = {step.name for step in operation.steps if step.state != "pending"}
    if until in begun:
        return f"it is past {until.replace('_', ' ')} and only goes forward now"
    return None


def _kind(operation: Operation) -> Kind:
    return next(kind for kind in PLANS if kind == operation.kind)


async def _record(
    db: Connection, caller: Caller, action: str, shown_id: str, operation: Operation
) -> None:
    facts: dict[str, object] = {"kind": operation.kind, "of": operation.subject}
    await audit.record(
        db, caller, Entry(action, shown_id, tenant_id=operation.tenant_id, facts=facts)
    )
