"""Rollout: the fleet brought to a revision, canary first, then wave by wave.

The steps look at the rollout's state each time they run: paused and halted ones wait, and what
was aborted is a cancelled operation.
"""

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

from control_plane.adapters import clock, migrator_lease
from control_plane.catalog import operations, rollout_batches, rollout_verification, rollouts
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict, RevisionFailed, RolloutIncomplete
from control_plane.domain.names import RoleSet, show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.rollouts import Rollout, WaveCounts, wave_name
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import migrating
from workers.steps.fleet import Fleet

_TEMPLATE_SECONDS = 0.5
_STANDING_SECONDS = 2.0
_OTHERS_SECONDS = 0.5


async def build_templates(ctx: StepContext) -> Outcome:
    """Every server involved has the template of this version: the revisions work when empty."""
    rollout = await _rollout(ctx)
    async with ctx.catalog_read() as db:
        lacking = await rollout_batches.servers_lacking(db, rollout.id, rollout.content)
    if not lacking:
        return Done(f"template {rollout.template} {rollout.content}")
    for server_id, name in lacking:
        await _build_template(ctx, rollout, server_id, name)
    return Wait(_TEMPLATE_SECONDS, f"building on {', '.join(name for _, name in lacking)}")


async def migrate_canary(ctx: StepContext) -> Outcome:
    """The first few tenants are migrated, alone."""
    return await _migrate(ctx, last_wave=0)


async def migrate_waves(ctx: StepContext) -> Outcome:
    """All other tenants are migrated, each wave after the one before."""
    return await _migrate(ctx, last_wave=None)


async def catch_up(ctx: StepContext) -> Outcome:
    """Tenants that were made or came back during the rollout are at its revision, too."""
    rollout = await _rollout(ctx)
    if rollout.state != "running":
        return _standing(rollout)
    async with ctx.catalog_read() as db:
        late = await rollouts.candidates(
            db, rollout.template, rollout.to_revision, rollout.selector, rollout.id
        )
        waves = await rollouts.counts(db, rollout.id)
        coming = await rollouts.newcomers(db, rollout.template, rollout.content)
    path = {revision["id"] for revision in rollout.script}
    late = [candidate for candidate in late if candidate.revision in path]
    if late:
        wave = max((counts.wave for counts in waves), default=0) + 1
        async with ctx.catalog_write() as db:
            await rollouts.add_targets(db, rollout.id, [(candidate, wave) for candidate in late])
    if late or any(not counts.over for counts in waves):
        return await _migrate_the_rest(ctx)
    if coming:
        return Wait(_OTHERS_SECONDS, f"waiting for new tenants: {', '.join(coming[:3])}")
    return Done("nobody is left behind")


async def verify_schemas(ctx: StepContext) -> Outcome:
    """Every schema was read in full since its migration, and is the one that the template makes."""
    rollout = await _rollout(ctx)
    if rollout.state != "running":
        return _standing(rollout)
    async with ctx.catalog_read() as db:
        unverified = await rollout_verification.unverified(db, rollout)
        survey = await rollout_verification.survey_since(db, rollout.id, _begun_at(ctx))
    if unverified and (survey is None or not _covers(survey, unverified)):
        await _begin_survey(ctx, rollout, unverified)
        return Wait(_OTHERS_SECONDS, f"reading {len(unverified)} schemas")
    if survey is not None and survey.live:
        detail = next((step.detail for step in survey.steps if step.detail), "")
        return Wait(_OTHERS_SECONDS, f"reading schemas: {detail}")
    async with ctx.catalog_write() as db:
        refused = await rollout_verification.refuse_unverified(db, rollout)
    return Done(f"{refused} are not as the template makes them" if refused else "all as they must")


async def conclude(ctx: StepContext) -> Outcome:
    """Every tenant is at the revision; otherwise the rollout says how many are not, and why."""
    rollout = await _rollout(ctx)
    if rollout.state == "succeeded":
        return Done(f"all at {rollout.to_revision}")
    if rollout.state != "running":
        return _standing(rollout)
    await _shut_migrators_out(ctx, rollout)
    async with ctx.catalog_write() as db:
        # Whoever resumes a rollout holds this row, too: it cannot succeed behind their back.
        await rollouts.lock(db, rollout.id)
        waves = await rollouts.counts(db, rollout.id)
        done, failed = sum(w.done for w in waves), sum(w.failed for w in waves)
        again = not all(counts.over for counts in waves)
        again = again or bool(await rollout_verification.unverified(db, rollout))
        if not failed and not again:
            await rollouts.change_state(
                db, rollout.id, expected=("running",), wanted="succeeded", reason=None
            )
    if failed:
        shown = show("ro", rollout.id)
        raise RolloutIncomplete(
            f"{failed} of {done + failed} tenants could not be migrated; look at: tenantry rollout "
            f"show {shown} --failed, and once it is mended: tenantry rollout resume {shown}"
        )
    return await _go_over_again(ctx) if again else Done(f"{done} at {rollout.to_revision}")


async def abandon(ctx: StepContext, db: Connection) -> None:
    """An aborted rollout leaves every tenant at the revision it has reached."""
    rollout = await rollouts.of_operation(db, ctx.operation.id)
    operation = await operations.get(db, ctx.operation.id)
    if operation.state == "cancelled":
        await rollouts.skip_waiting(db, rollout.id, "the rollout was aborted")
        await rollouts.end(db, rollout.id, "aborted", rollout.reason)
    else:
        await rollouts.end(db, rollout.id, "incomplete", operation.error_message)


async def _migrate(ctx: StepContext, last_wave: int | None) -> Outcome:
    rollout = await _rollout(ctx)
    if rollout.state != "running":
        return _standing(rollout)
    waves = await _look(ctx, rollout, last_wave)
    if not all(counts.over for counts in waves):
        await Fleet(ctx, rollout, migrating.script_of(rollout)).run(last_wave)
        waves = await _look(ctx, rollout, last_wave)
        rollout = await _rollout(ctx)
    if rollout.state != "running":
        return _standing(rollout)
    if all(counts.over for counts in waves):
        done = sum(counts.done for counts in waves)
        return Done(f"{done} migrated") if done else Skip("no tenant needs it")
    return await _not_yet(ctx, next(counts for counts in waves if not counts.over))


async def _not_yet(ctx: StepContext, counts: WaveCounts) -> Outcome:
    """On at once while there is work of ours; a little later when others are to finish first."""
    async with ctx.catalog_read() as db:
        rollout = await rollouts.of_operation(db, ctx.operation.id)
        others = await rollout_batches.waited_for(db, rollout.id, counts.wave)
    name = wave_name(counts.wave)
    if others:
        return Wait(_OTHERS_SECONDS, f"{name} waits for {', '.join(others)}")
    return Wait(0, f"{name}: {counts.done} of {counts.size} tenants")


async def _look(ctx: StepContext, rollout: Rollout, last_wave: int | None) -> Sequence[WaveCounts]:
    async with ctx.catalog_write() as db:
        await rollout_batches.reap(db, rollout.id, rollout.to_revision)
        waves = await rollouts.counts(db, rollout.id)
    return [counts for counts in waves if last_wave is None or counts.wave <= last_wave]


async def _build_template(ctx: StepContext, rollout: Rollout, server_id: UUID, name: str) -> None:
    """Ask for the template, unless it is being built already.

    Raises:
        RevisionFailed: it was tried since the rollout began, and the revisions do not work.
    """
    since = _begun_at(ctx)
    async with ctx.catalog_read() as db:
        problem = await operations.problem_since(db, server_id, "enrol", rollout.content, since)
    if problem is not None:
        raise RevisionFailed(f"the template cannot be built on {name}: {problem}")
    try:
        async with ctx.catalog_write() as db:
            operation = await operations.insert(
                db,
                NewOperation(
                    id=clock.new_id(),
                    plan=PLANS["enrol"],
                    subject=name,
                    actor=ctx.operation.actor,
                    server_id=server_id,
                    input={"template": rollout.template, "content": rollout.content},
                ),
            )
    except Conflict:
        return
    await ctx.ports.doorbell.ring(operation.id, operation.queue)


def _standing(rollout: Rollout) -> Wait:
    return Wait(_STANDING_SECONDS, f"{rollout.state}: {rollout.reason or 'as asked'}")


async def _migrate_the_rest(ctx: StepContext) -> Outcome:
    """Work of an earlier step that came up in a later one; the step looks again afterwards."""
    outcome = await _migrate(ctx, last_wave=None)
    return outcome if isinstance(outcome, Wait) else Wait(0, "looking again")


async def _go_over_again(ctx: StepContext) -> Outcome:
    """Somebody resumed it while it came to its end."""
    rest = await _migrate_the_rest(ctx)
    if isinstance(rest, Wait) and rest.seconds > 0:
        return rest
    outcome = await verify_schemas(ctx)
    return outcome if isinstance(outcome, Wait) else Wait(0, "looking again")


async def _shut_migrators_out(ctx: StepContext, rollout: Rollout) -> None:
    """No migrator that a killed worker left open stays open."""
    async with ctx.catalog_read() as db:
        held = await rollout_batches.idle_role_sets(db, rollout.id)
    for server_id, keys in held.items():
        async with ctx.admin(await ctx.server(server_id)) as admin:
            left = await migrator_lease.open_ones(admin, [RoleSet(key) for key in keys])
            await migrator_lease.close_migrators(admin, left)


def _covers(survey: Operation, unverified: Sequence[UUID]) -> bool:
    return {str(key) for key in unverified} <= set(survey.input["tenants"])


async def _begin_survey(ctx: StepContext, rollout: Rollout, tenants: Sequence[UUID]) -> None:
    async with ctx.catalog_write() as db:
        operation = await operations.insert(
            db,
            NewOperation(
                id=clock.new_id(),
                plan=PLANS["survey"],
                subject="fleet",
                actor=ctx.operation.actor,
                input={"tenants": [str(key) for key in tenants], "rollout": str(rollout.id)},
            ),
        )
    await ctx.ports.doorbell.ring(operation.id, operation.queue)


def _begun_at(ctx: StepContext) -> dt.datetime:
    """When the operation was asked for, or opened again."""
    return ctx.operation.deadline - PLANS["rollout"].deadline


async def _rollout(ctx: StepContext) -> Rollout:
    async with ctx.catalog_read() as db:
        return await rollouts.of_operation(db, ctx.operation.id)


VERB = Verb(
    plan=PLANS["rollout"],
    steps=(build_templates, migrate_canary, migrate_waves, catch_up, verify_schemas, conclude),
    abandon=abandon,
)
