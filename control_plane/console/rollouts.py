"""Rollouts: waves as grids of tenants, what failed alike, and the brakes."""

from collections.abc import Callable
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect, ServerSentEvent

from control_plane.catalog import rollout_progress
from control_plane.catalog import rollouts as catalog_rollouts
from control_plane.catalog.pool import Connection
from control_plane.catalog.rollout_progress import Pace
from control_plane.catalog.rollouts import Target
from control_plane.console.access import needs
from control_plane.console.forms import Trouble, fields_of, read_form, trouble_of
from control_plane.console.operations import OnceForm
from control_plane.console.rendering import fragment, page
from control_plane.console.streams import Shown, live
from control_plane.console.visits import AnyRequest, Visit, Visiting
from control_plane.domain.errors import Conflict, SchemaMismatch, TenantryError
from control_plane.domain.names import parse, show
from control_plane.domain.operations import Operation
from control_plane.domain.rollouts import seconds_left, wave_name
from control_plane.services import rollouts
from control_plane.services.rollouts import Compiled, Progress

PAGE = 50
# Of a larger rollout the first ones are drawn; the counts are of all.
_DRAWN = 1000
_REST_SECONDS = 1.0


class RolloutPages(Controller):
    """``{rollout}`` is a ``ro_`` id."""

    path = "/rollouts"

    @get(opt=needs("listRollouts"))
    async def list_rollouts(
        self,
        request: AnyRequest,
        visit: Visiting,
        before: Annotated[str, QueryParameter(max_length=40)] = "",
    ) -> Response[str]:
        """Rollouts, newest first."""
        async with visit.ports.catalog.connection() as db:
            found = await catalog_rollouts.page(db, before=parse("ro", before), limit=PAGE)
            totals = await rollout_progress.totals(db, [one.id for one in found])
        following = show("ro", found[-1].id) if len(found) == PAGE else None
        return page(
            request,
            "rollouts.html",
            rollouts=found,
            totals=totals,
            next_url=f"/console/rollouts?before={following}" if following else None,
            first_url="/console/rollouts" if before else None,
        )

    @get("/{rollout:str}", opt=needs("getRollout"))
    async def show_rollout(
        self, rollout: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """One rollout, wave by wave."""
        return await _show(rollout, request, visit)

    @get("/{rollout:str}/events", opt={**needs("getRollout"), "quiet": True})
    async def follow(self, rollout: FromPath[str], visit: Visiting) -> ServerSentEvent:
        """The same again at every change, until it is over."""
        await _facts(visit, rollout)

        async def look() -> Shown:
            facts = await _facts(visit, rollout)
            last = not facts["rollout"].live
            return Shown(fragment(visit, "_rollout.html", **facts), last=last)

        return live(visit, visit.desk.changes.watch_all(), look, rest_seconds=_REST_SECONDS)

    @post("/{rollout:str}/pause", opt=needs("pauseRollout"))
    async def pause(
        self, rollout: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Begin no further tenant until it is resumed."""
        try:
            async with visit.ports.catalog.transaction() as db:
                await rollouts.pause_rollout(db, visit.caller, rollout)
        except TenantryError as error:
            return await _show(rollout, request, visit, trouble_of(error))
        return _to(rollout)

    @post("/{rollout:str}/resume", opt=needs("resumeRollout"))
    async def resume(
        self, rollout: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """Go on, and try those that failed again, with the template's files as they are now."""
        try:
            compiled = await _compile(visit, rollout)
        except TenantryError as error:
            return await _show(rollout, request, visit, trouble_of(error))

        async def work(db: Connection) -> Operation:
            return await rollouts.resume_rollout(db, visit.caller, rollout, compiled)

        return await _carry_out(rollout, request, visit, work)

    @get("/{rollout:str}/abort", opt=needs("abortRollout"))
    async def plan_abort(
        self, rollout: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[str]:
        """What aborting would leave behind."""
        return page(request, "rollout_abort.html", **await _facts(visit, rollout))

    @post("/{rollout:str}/abort", opt=needs("abortRollout"))
    async def abort(
        self, rollout: FromPath[str], request: AnyRequest, visit: Visiting
    ) -> Response[Any]:
        """End it here; every tenant keeps the revision that it has reached."""

        async def work(db: Connection) -> Operation:
            return await rollouts.abort_rollout(db, visit.caller, rollout)

        return await _carry_out(rollout, request, visit, work)


async def _carry_out(
    rollout: str, request: AnyRequest, visit: Visit, work: Callable[[Connection], Any]
) -> Response[Any]:
    fields = await fields_of(request)
    try:
        form = read_form(fields, OnceForm)
        await visit.begin(work, form.form_key, {**fields, "rollout": rollout})
    except TenantryError as error:
        return await _show(rollout, request, visit, trouble_of(error))
    return _to(rollout)


async def _compile(visit: Visit, rollout: str) -> Compiled:
    """The path of the rollout, from the files as they are now.

    Raises:
        NotFound: there is no such rollout.
        Conflict: the files are broken at the moment; the message says where.
    """
    async with visit.ports.catalog.connection() as db:
        found = await rollouts.find_rollout(db, rollout)
    try:
        return await rollouts.compile_template(visit.ports, found.template, found.to_revision)
    except SchemaMismatch as error:
        raise Conflict(error.message) from error


async def _show(
    rollout: str, request: AnyRequest, visit: Visit, trouble: Trouble | None = None
) -> Response[str]:
    facts = await _facts(visit, rollout)
    status = trouble.status if trouble else 200
    return page(request, "rollout.html", status, trouble=trouble, **facts)


async def _facts(visit: Visit, shown_id: str) -> dict[str, Any]:
    async with visit.ports.catalog.snapshot() as db:
        progress = await rollouts.show_rollout(db, shown_id)
        key = progress.rollout.id
        targets = await rollouts.list_targets(db, shown_id, state=None, after=None, limit=_DRAWN)
        failures = await rollout_progress.failures(db, key)
        pace = await rollout_progress.pace(db, key)
    drawn: dict[int, list[Target]] = {}
    for target in targets:
        drawn.setdefault(target.wave, []).append(target)
    return {
        "rollout": progress.rollout,
        "waves": [(one, wave_name(one.wave), drawn.get(one.wave, [])) for one in progress.waves],
        "total": sum(one.size for one in progress.waves),
        "over": sum(one.done + one.skipped for one in progress.waves),
        "failures": failures,
        "seconds_left": _seconds_left(progress, pace),
    }


def _seconds_left(progress: Progress, pace: Pace) -> float | None:
    left = sum(wave.waiting + wave.running for wave in progress.waves)
    if progress.rollout.state != "running" or not left:
        return None
    return seconds_left(pace.done, left, pace.seconds)


def _to(rollout: str) -> Redirect:
    return Redirect(f"/console/rollouts/{rollout}", status_code=303)
