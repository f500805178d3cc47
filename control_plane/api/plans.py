"""The plans over HTTP: what every kind of work consists of."""

import msgspec
from litestar import Controller, get

from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Limit, NameCursor, cut
from control_plane.domain.operations import Queue
from control_plane.domain.plans import PLANS, Plan


class PlanView(msgspec.Struct, frozen=True):
    """How one kind of work is done. Cancelling is refused from ``cancellable_until`` on."""

    kind: str
    steps: list[str]
    queue: Queue
    deadline_seconds: int
    cancellable_until: str | None


class PlanPage(msgspec.Struct, frozen=True):
    items: list[PlanView]
    next_cursor: str | None


def plan_view(plan: Plan) -> PlanView:
    """The JSON of a plan."""
    return PlanView(
        kind=plan.kind,
        steps=list(plan.steps),
        queue=plan.queue,
        deadline_seconds=int(plan.deadline.total_seconds()),
        cancellable_until=plan.cancellable_until,
    )


class PlanController(Controller):
    """Read only: plans change with the version."""

    path = "/plans"
    tags = ("operations",)

    @get(operation_id="listPlans", responses=refusals())
    async def list_plans(self, cursor: NameCursor = None, limit: Limit = LIMIT) -> PlanPage:
        """The steps of every kind of work, in order."""
        plans = list(PLANS.values())
        page, following = cut(plans, lambda p: p.kind, after=cursor, limit=limit)
        return PlanPage([plan_view(plan) for plan in page], following)
