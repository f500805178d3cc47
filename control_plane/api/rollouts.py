"""Rollouts over HTTP: bring the fleet to a revision, look, stop, go on."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from control_plane.api import rollout_views as views
from control_plane.api.acceptance import LOCATION, DryRun, accept
from control_plane.api.context import Changing, Reading, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.paging import LIMIT, Cursor, Limit, next_cursor, position
from control_plane.api.revisions import compile_now
from control_plane.api.rollout_views import RolloutPage, RolloutPreview, RolloutView, TargetPage
from control_plane.api.views import OperationView
from control_plane.api.words import NAME_OR_ID, PRINTABLE, SHARE
from control_plane.catalog import operations as catalog_operations
from control_plane.catalog import rollout_progress
from control_plane.catalog import rollouts as catalog_rollouts
from control_plane.catalog.pool import Connection
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import Conflict, LintRefused
from control_plane.domain.rollouts import Options, Selector, TargetState, parse_share
from control_plane.domain.tenants import Tier
from control_plane.services import rollouts
from control_plane.services.ports import Ports
from control_plane.services.rehearsal import rehearse
from control_plane.services.requests import Effect
from control_plane.services.rollouts import Compiled, NewRollout

Name = Annotated[str, Meta(pattern=NAME_OR_ID)]
RevisionId = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=100)]
Share = Annotated[str, Meta(pattern=SHARE)]
Parallel = Annotated[int, Meta(ge=1, le=256)]
# The domain says what is wrong with a time; the schema only shows its limits.
LockSeconds = Annotated[float, Meta(extra_json_schema={"minimum": 0.1, "maximum": 60})]
StatementSeconds = Annotated[float, Meta(extra_json_schema={"minimum": 1, "maximum": 3600})]

_PREVIEWED = {
    200: ResponseSpec(
        data_container=RolloutPreview,
        description="What would be done (dry_run); nothing was changed",
        generate_examples=False,
    )
}


class RolloutSelector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tenants: every part that is given must fit; an empty one is the whole fleet."""

    tiers: Annotated[list[Tier], Meta(max_length=10)] = []
    servers: Annotated[list[Name], Meta(max_length=500)] = []
    tenants: Annotated[list[Name], Meta(max_length=1000)] = []
    labels: Annotated[dict[str, str], Meta(max_length=50)] = {}


class NewRolloutBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rollout. ``waves`` are cumulative; without ``revision`` it is the template's newest.

    ``halt_at`` is the share of a wave that may fail, ``halt_at_lock_wait`` the share that may
    wait for locks. Times are in seconds.
    """

    template: Name = DEFAULT_TEMPLATE
    revision: RevisionId | None = None
    select: RolloutSelector | None = None
    canary: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    waves: Annotated[list[Share], Meta(min_length=1, max_length=20)] | None = None
    max_parallel: Parallel | None = None
    per_server: Parallel | None = None
    halt_at: Share | None = None
    halt_at_lock_wait: Share | None = None
    lock_timeout: LockSeconds | None = None
    statement_timeout: StatementSeconds | None = None


class RolloutController(Controller):
    """``{rollout}`` is a ``ro_`` id. An operation whose ``subject`` is that id carries it out."""

    path = "/rollouts"
    tags = ("operations",)

    @post(
        operation_id="startRollout",
        status_code=202,
        responses={**_PREVIEWED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def start_rollout(
        self, changing: Writing, data: JSONBody[NewRolloutBody], *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Bring tenants to a revision, canary first, wave by wave; ``subject`` is its id."""
        saved = None if dry_run else await changing.recall()
        if saved is not None:
            return answer(saved, OperationView)
        wanted = _wanted(data)
        # Before the transaction, because compiling takes its time.
        compiled = await compile_now(changing.ports, wanted.template, wanted.revision)
        if dry_run:
            return await _preview(changing, compiled, wanted)
        return await accept(
            changing, lambda db: rollouts.start_rollout(db, changing.caller, compiled, wanted)
        )

    @get(operation_id="listRollouts", responses=refusals())
    async def list_rollouts(
        self, asking: Reading, cursor: Cursor = None, limit: Limit = LIMIT
    ) -> RolloutPage:
        """Rollouts, newest first."""
        async with asking.ports.catalog.connection() as db:
            found = await catalog_rollouts.page(db, before=position(cursor), limit=limit)
            totals = await rollout_progress.totals(db, [one.id for one in found])
        return RolloutPage(
            [views.summary_view(one, totals.get(one.id)) for one in found],
            next_cursor(found, limit, lambda r: r.id),
        )

    @get("/{rollout:str}", operation_id="getRollout", responses=refusals(404))
    async def get_rollout(self, rollout: FromPath[str], asking: Reading) -> RolloutView:
        """One rollout: its waves, what failed and why, and when it may be over."""
        async with asking.ports.catalog.connection() as db:
            return await _look(db, rollout)

    @get("/{rollout:str}/targets", operation_id="listRolloutTargets", responses=refusals(404))
    async def list_targets(
        self,
        rollout: FromPath[str],
        asking: Reading,
        target_state: Annotated[TargetState | None, QueryParameter(name="state")] = None,
        cursor: Cursor = None,
        limit: Limit = LIMIT,
    ) -> TargetPage:
        """The tenants of a rollout in their order, wave by wave."""
        async with asking.ports.catalog.connection() as db:
            found = await rollouts.list_targets(
                db, rollout, state=target_state, after=position(cursor), limit=limit
            )
        return TargetPage(
            [views.target_view(one) for one in found],
            next_cursor(found, limit, lambda t: t.tenant_id),
        )

    @post(
        "/{rollout:str}/pause",
        operation_id="pauseRollout",
        status_code=200,
        responses=refusals(404, 409, 413),
    )
    async def pause_rollout(
        self, rollout: FromPath[str], changing: Writing
    ) -> Response[RolloutView]:
        """Begin no further tenant until it is resumed; those in the works are finished."""

        async def carry_out(db: Connection) -> Effect:
            await rollouts.pause_rollout(db, changing.caller, rollout)
            return effect(200, await _look(db, rollout))

        return answer(await changing.perform(carry_out), RolloutView)

    @post(
        "/{rollout:str}/resume",
        operation_id="resumeRollout",
        status_code=202,
        responses=refusals(404, 409, 413),
        response_headers=[LOCATION],
    )
    async def resume_rollout(
        self, rollout: FromPath[str], changing: Writing
    ) -> Response[OperationView]:
        """Go on, and try the failed tenants again, with the template's files as they are now."""
        saved = await changing.recall()
        if saved is not None:
            return answer(saved, OperationView)
        compiled = await _compile_for(changing.ports, rollout)
        return await accept(
            changing,
            lambda db: rollouts.resume_rollout(db, changing.caller, rollout, compiled),
        )

    @post(
        "/{rollout:str}/abort",
        operation_id="abortRollout",
        status_code=202,
        responses=refusals(404, 409, 413),
        response_headers=[LOCATION],
    )
    async def abort_rollout(
        self, rollout: FromPath[str], changing: Writing
    ) -> Response[OperationView]:
        """End it here; every tenant keeps the revision that it has reached."""
        return await accept(
            changing, lambda db: rollouts.abort_rollout(db, changing.caller, rollout)
        )


async def _preview(changing: Changing, compiled: Compiled, wanted: NewRollout) -> Response[Any]:
    """What would be done, and whether it would be accepted."""

    async def look(db: Connection) -> RolloutPreview:
        preview = await rollouts.preview_rollout(db, compiled, wanted)
        refusal = None
        try:
            await rollouts.start_rollout(db, changing.caller, compiled, wanted)
        except (LintRefused, Conflict) as error:
            refusal = error.message
        return views.preview_view(preview, wanted.options, refusal)

    return Response(await rehearse(changing.ports, look), status_code=200)


async def _compile_for(ports: Ports, shown_id: str) -> Compiled:
    """The path of an existing rollout, from the files as they are now."""
    async with ports.catalog.connection() as db:
        found = await rollouts.find_rollout(db, shown_id)
    return await compile_now(ports, found.template, found.to_revision)


async def _look(db: Connection, shown_id: str) -> RolloutView:
    progress = await rollouts.show_rollout(db, shown_id)
    found = progress.rollout
    return views.rollout_view(
        progress,
        await catalog_operations.get(db, found.operation_id),
        await rollout_progress.failures(db, found.id),
        await rollout_progress.pace(db, found.id),
    )


def _wanted(data: NewRolloutBody) -> NewRollout:
    select = data.select or RolloutSelector()
    numbers = ("canary", "max_parallel", "per_server", "lock_timeout", "statement_timeout")
    given = {name: getattr(data, name) for name in numbers}
    for name in ("halt_at", "halt_at_lock_wait"):
        share = getattr(data, name)
        given[name] = None if share is None else parse_share(share)
    given["waves"] = None if data.waves is None else tuple(map(parse_share, data.waves))
    return NewRollout(
        template=data.template,
        revision=data.revision,
        selector=Selector(
            tiers=tuple(select.tiers),
            servers=tuple(select.servers),
            tenants=tuple(select.tenants),
            labels=select.labels,
        ),
        options=Options(**{name: value for name, value in given.items() if value is not None}),
    )
