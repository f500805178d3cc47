"""The JSON of answers: flat structs, ids with their type prefix, times in UTC."""

import datetime as dt
from typing import Any, Literal

import msgspec

from control_plane.domain.names import show
from control_plane.domain.operations import Operation, OperationState, Step, StepState
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant, TenantState, Tier


class ErrorView(msgspec.Struct, frozen=True):
    """Why a step or an operation did not succeed: a stable code and a sentence."""

    code: str
    message: str


class StepView(msgspec.Struct, frozen=True):
    """One step of an operation; ``error`` of a running step is that of its latest attempt."""

    name: str
    state: StepState
    attempts: int
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    detail: str | None
    error: ErrorView | None


class Progress(msgspec.Struct, frozen=True):
    """How far an operation is: steps done or skipped, of all; and what it does right now."""

    done: int
    total: int
    detail: str | None


class OperationView(msgspec.Struct, frozen=True):
    """One operation. ``tenant`` is a slug; ``subject`` names whatever else it is about."""

    id: str
    kind: str
    tenant: str | None
    subject: str
    state: OperationState
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    deadline: dt.datetime
    actor: str
    progress: Progress
    steps: list[StepView]
    error: ErrorView | None
    result: dict[str, Any] | None


class OperationPage(msgspec.Struct, frozen=True):
    items: list[OperationView]
    next_cursor: str | None


class OperationNote(msgspec.Struct, frozen=True):
    """The live operation of a tenant."""

    id: str
    kind: str


class TenantView(msgspec.Struct, frozen=True):
    """One tenant; ``operation`` is what is in flight, if anything.

    While it is being deleted: its databases are dropped after ``delete_after``, then its backups
    and keys are destroyed after ``shred_after``.
    """

    id: str
    slug: str
    name: str
    tier: Tier
    region: str | None
    labels: dict[str, str]
    state: TenantState
    server: str | None
    cell: str
    template: str
    schema_revision: str | None
    placement_reason: str | None
    created_at: dt.datetime
    activated_at: dt.datetime | None
    legal_hold: bool
    delete_after: dt.datetime | None
    shred_after: dt.datetime | None
    operation: OperationNote | None


class TenantPage(msgspec.Struct, frozen=True):
    items: list[TenantView]
    next_cursor: str | None


class PlacementView(msgspec.Struct, frozen=True):
    """Where a tenant would go, and why; ``claimed``: its database is ready in the pool."""

    server: str | None
    cell: str
    reason: str | None
    claimed: bool


class RehearsalView(msgspec.Struct, frozen=True):
    """What a request would do: nothing was changed."""

    dry_run: Literal[True]
    kind: str
    tenant: str | None
    steps: list[str]
    deadline_seconds: int
    placement: PlacementView | None


def operation_view(operation: Operation) -> OperationView:
    """The JSON of an operation."""
    running = next((step for step in operation.steps if step.state == "running"), None)
    finished = sum(step.state in ("done", "skipped") for step in operation.steps)
    return OperationView(
        id=show("op", operation.id),
        kind=operation.kind,
        tenant=operation.subject if operation.tenant_id is not None else None,
        subject=operation.subject,
        state=operation.state,
        created_at=operation.created_at,
        started_at=operation.started_at,
        finished_at=operation.finished_at,
        deadline=operation.deadline,
        actor=operation.actor,
        progress=Progress(
            done=finished,
            total=len(operation.steps),
            detail=(running.detail or running.name) if running else None,
        ),
        steps=[step_view(step) for step in operation.steps],
        error=_error(operation.error_code, operation.error_message),
        result=operation.result,
    )


def step_view(step: Step) -> StepView:
    """The JSON of a step."""
    return StepView(
        name=step.name,
        state=step.state,
        attempts=step.attempts,
        started_at=step.started_at,
        finished_at=step.finished_at,
        detail=step.detail,
        error=_error(step.error_code, step.error_message),
    )


def _error(code: str | None, message: str | None) -> ErrorView | None:
    return ErrorView(code, message or "") if code is not None else None


def tenant_view(tenant: Tenant) -> TenantView:
    """The JSON of a tenant."""
    operation = None
    if tenant.operation_id is not None:
        operation = OperationNote(show("op", tenant.operation_id), tenant.operation_kind or "")
    return TenantView(
        id=show("tn", tenant.id),
        slug=tenant.slug,
        name=tenant.name,
        tier=tenant.tier,
        region=tenant.region,
        labels=tenant.labels,
        state=tenant.state,
        server=tenant.server,
        cell=tenant.cell,
        template=tenant.template,
        schema_revision=tenant.schema_revision,
        placement_reason=tenant.placement_reason,
        created_at=tenant.created_at,
        activated_at=tenant.activated_at,
        legal_hold=tenant.legal_hold,
        delete_after=tenant.delete_after,
        shred_after=tenant.shred_after,
        operation=operation,
    )


def rehearsal_view(operation: Operation, created: Tenant | None = None) -> RehearsalView:
    """The JSON of a dry run; ``created`` is the tenant that a creation would make."""
    plan = next(plan for kind, plan in PLANS.items() if kind == operation.kind)
    placement = None
    if created is not None:
        placement = PlacementView(
            server=created.server,
            cell=created.cell,
            reason=created.placement_reason,
            claimed=bool(operation.input.get("claimed")),
        )
    return RehearsalView(
        dry_run=True,
        kind=operation.kind,
        tenant=operation.subject,
        steps=[step.name for step in operation.steps],
        deadline_seconds=int(plan.deadline.total_seconds()),
        placement=placement,
    )
