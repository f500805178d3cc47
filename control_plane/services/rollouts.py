"""What may be asked about the schema of the fleet: bring tenants to a revision, stop, go on."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from control_plane.adapters import clock, revision_lint
from control_plane.adapters.revision_lint import LintFinding
from control_plane.adapters.revisions import Revision, compile_path
from control_plane.adapters.template_files import Template
from control_plane.catalog import audit, operations, rollouts, servers
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.catalog.rollouts import Target
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import Conflict, Invalid, LintRefused, NotFound, WrongState
from control_plane.domain.names import parse, show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.rollouts import (
    Candidate,
    Options,
    Rollout,
    RolloutState,
    Selector,
    TargetState,
    WaveCounts,
    assign_waves,
    check_options,
    check_selector,
)
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant


class NewRollout(msgspec.Struct, frozen=True):
    """A request for a rollout; ``revision`` ``None`` means the template's newest."""

    template: str = DEFAULT_TEMPLATE
    revision: str | None = None
    selector: Selector = Selector()
    options: Options = Options()


class Compiled(msgspec.Struct, frozen=True):
    """A template's revisions as SQL, up to the one that is meant, with what the lint says."""

    template: Template
    target: str
    path: tuple[Revision, ...]
    findings: tuple[LintFinding, ...]


class PlannedWave(msgspec.Struct, frozen=True):
    """A wave before it begins, with the first few of its tenants."""

    wave: int
    tenants: int
    sample: tuple[str, ...]


class Preview(msgspec.Struct, frozen=True):
    """What a rollout would do. ``left_out`` are tenants whose revision is not on the path."""

    template: str
    to_revision: str
    revisions: tuple[Revision, ...]
    findings: tuple[LintFinding, ...]
    waves: tuple[PlannedWave, ...]
    left_out: tuple[str, ...]


class Progress(msgspec.Struct, frozen=True):
    """A rollout with how far each wave has come."""

    rollout: Rollout
    waves: tuple[WaveCounts, ...]


_SAMPLE = 5


async def compile_template(ports: Ports, template: str, revision: str | None) -> Compiled:
    """The template's files as they are now; not inside a transaction, for it takes a moment.

    Raises:
        Invalid: there is no such template or revision.
        SchemaMismatch: the files are broken; the message names the file.
        Conflict: the files were changed meanwhile.
    """
    found = await asyncio.to_thread(ports.templates.fresh, template)
    path = await asyncio.to_thread(compile_path, found.directory, revision)
    findings = await asyncio.to_thread(revision_lint.lint, path)
    after = await asyncio.to_thread(ports.templates.fresh, template)
    if after.fingerprint != found.fingerprint:
        raise Conflict(f"the files of template {template} are being changed; try again")
    return Compiled(found, path[-1].id, path, tuple(findings))


async def preview_rollout(db: Connection, compiled: Compiled, wanted: NewRollout) -> Preview:
    """What ``start_rollout`` would do, with the SQL, refused or not.

    Raises:
        Invalid: the selector or an option cannot be meant.
    """
    chosen, left_out = await _choose(db, compiled, wanted)
    pending = _pending(compiled, chosen)
    waves = assign_waves(chosen, check_options(wanted.options))
    return Preview(
        template=compiled.template.name,
        to_revision=compiled.target,
        revisions=pending,
        findings=_of(compiled.findings, pending),
        waves=_planned(waves),
        left_out=tuple(candidate.slug for candidate in left_out),
    )


async def start_rollout(
    db: Connection, caller: Caller, compiled: Compiled, wanted: NewRollout
) -> Operation:
    """Record a rollout over the tenants that need it.

    Raises:
        Invalid: the selector or an option cannot be meant.
        LintRefused: a revision would lock, rewrite or lose data; each finding has its remedy.
        Conflict: another rollout of this template is alive.
    """
    chosen, _ = await _choose(db, compiled, wanted)
    _refuse_findings(compiled, _pending(compiled, chosen))
    rollout_id = clock.new_id()
    operation = await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["rollout"],
            subject=show("ro", rollout_id),
            actor=caller.principal.name,
        ),
    )
    rollout = Rollout(
        id=rollout_id,
        operation_id=operation.id,
        template=compiled.template.name,
        content=compiled.template.fingerprint,
        to_revision=compiled.target,
        selector=wanted.selector,
        options=check_options(wanted.options),
        script=_script(compiled),
        state="running",
        wave=0,
        reason=None,
        created_by=caller.principal.name,
        created_at=operation.created_at,
        finished_at=None,
    )
    await rollouts.insert(db, rollout)
    await rollouts.add_targets(db, rollout.id, assign_waves(chosen, wanted.options))
    await _audit(db, caller, "rollout.start", rollout, tenants=len(chosen), **_overridden(compiled))
    return operation


async def pause_rollout(db: Connection, caller: Caller, shown_id: str) -> Progress:
    """Begin no further tenant until it is resumed; those in the works are finished.

    Raises:
        NotFound: there is no such rollout.
        WrongState: it does not run, or is being aborted.
    """
    rollout = await _hold(db, shown_id)
    await _refuse_aborted(db, rollout)
    reason = f"paused by {caller.principal.name}"
    if not await rollouts.change_state(
        db, rollout.id, expected=("running",), wanted="paused", reason=reason
    ):
        raise WrongState(f"rollout {shown_id} is {rollout.state}; only a running one can be paused")
    await _audit(db, caller, "rollout.pause", rollout)
    return await show_rollout(db, shown_id)


async def resume_rollout(
    db: Connection, caller: Caller, shown_id: str, compiled: Compiled
) -> Operation:
    """Go on, and try the failed tenants again, with the revisions as the files are now.

    Raises:
        NotFound: there is no such rollout.
        WrongState: it is running, has succeeded, was aborted or is about to be.
        LintRefused: the files were changed into something dangerous.
    """
    rollout = await _hold(db, shown_id)
    await _refuse_aborted(db, rollout)
    if rollout.state not in ("paused", "halted", "incomplete"):
        raise WrongState(f"rollout {shown_id} is {rollout.state}; there is nothing to resume")
    ids = {revision.id for revision in compiled.path}
    _refuse_findings(compiled, tuple(r for r in compiled.path if r.id in ids))
    if rollout.state == "incomplete":
        await rollouts.reopen(db, rollout)
    again = await rollouts.try_failed_again(db, rollout.id)
    await rollouts.renew_script(db, rollout.id, compiled.template.fingerprint, _script(compiled))
    expected: tuple[RolloutState, ...] = ("paused", "halted", "incomplete")
    await rollouts.change_state(db, rollout.id, expected=expected, wanted="running", reason=None)
    await rollouts.wake(db, rollout.operation_id)
    changed = compiled.template.fingerprint != rollout.content
    await _audit(db, caller, "rollout.resume", rollout, again=again, changed=changed)
    return await operations.get(db, rollout.operation_id)


async def abort_rollout(db: Connection, caller: Caller, shown_id: str) -> Operation:
    """Begin no further tenant, for good; every tenant keeps the revision it has reached.

    Raises:
        NotFound, WrongState: see there.
    """
    rollout = await _hold(db, shown_id)
    if rollout.state == "incomplete":
        raise WrongState(f"rollout {shown_id} has ended; there is nothing to abort")
    operation = await operations.request_cancel(db, rollout.operation_id, PLANS["rollout"])
    await rollouts.change_state(
        db,
        rollout.id,
        expected=("running", "halted"),
        wanted="paused",
        reason=f"aborted by {caller.principal.name}",
    )
    await _audit(db, caller, "rollout.abort", rollout)
    return operation


async def find_rollout(db: Connection, shown_id: str) -> Rollout:
    """The rollout with this ``ro_`` id.

    Raises:
        NotFound: there is none.
    """
    rollout_id = parse("ro", shown_id)
    if rollout_id is None:
        raise NotFound(f"there is no rollout {shown_id!r}")
    return await rollouts.get(db, rollout_id)


async def show_rollout(db: Connection, shown_id: str) -> Progress:
    """The rollout with its waves.

    Raises:
        NotFound: there is none.
    """
    rollout = await find_rollout(db, shown_id)
    return Progress(rollout, tuple(await rollouts.counts(db, rollout.id)))


async def list_targets(
    db: Connection, shown_id: str, *, state: TargetState | None, after: UUID | None, limit: int
) -> list[Target]:
    """Tenants of a rollout in their order.

    Raises:
        NotFound: there is no such rollout.
    """
    rollout = await find_rollout(db, shown_id)
    return await rollouts.targets(db, rollout.id, state=state, after=after, limit=limit)


async def migrate_tenant(
    db: Connection, caller: Caller, slug_or_id: str, compiled: Compiled
) -> Operation:
    """Bring one tenant to a revision.

    Raises:
        NotFound, WrongState, OperationInProgress: see there.
        LintRefused: a revision that it lacks would lock, rewrite or lose data.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    if tenant.state not in ("active", "suspended"):
        raise WrongState(f"{tenant.slug} is {tenant.state}; only a tenant with a database migrates")
    if tenant.schema_revision not in {revision.id for revision in compiled.path}:
        raise WrongState(
            f"{tenant.slug} is at {tenant.schema_revision}, which is not on the path to "
            f"{compiled.target} of template {compiled.template.name}"
        )
    _refuse_findings(compiled, _after(compiled.path, tenant.schema_revision))
    operation = await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["migrate"],
            subject=tenant.slug,
            actor=caller.principal.name,
            tenant_id=tenant.id,
            input={"template": compiled.template.name, "revision": compiled.target},
        ),
    )
    facts: dict[str, object] = {"from": tenant.schema_revision, "to": compiled.target}
    facts.update(_overridden(compiled))
    await audit.record(
        db, caller, Entry("tenant.migrate", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def _hold(db: Connection, shown_id: str) -> Rollout:
    """The rollout, which nobody else changes until the transaction ends; always locked first."""
    await rollouts.lock(db, (await find_rollout(db, shown_id)).id)
    return await find_rollout(db, shown_id)


async def _refuse_aborted(db: Connection, rollout: Rollout) -> None:
    if (await operations.get(db, rollout.operation_id)).state == "cancelling":
        shown = show("ro", rollout.id)
        raise WrongState(f"rollout {shown} is being aborted; start another once it has ended")


async def _choose(
    db: Connection, compiled: Compiled, wanted: NewRollout
) -> tuple[list[Candidate], list[Candidate]]:
    """Tenants to migrate, and those that fit and whose revision is not on the path."""
    selector = check_selector(wanted.selector)
    await _require_servers(db, selector.servers)
    for slug in selector.tenants:
        await rollouts.require_tenant(db, slug, compiled.template.name)
    found = await rollouts.candidates(db, compiled.template.name, compiled.target, selector)
    ids = {revision.id for revision in compiled.path}
    return (
        [candidate for candidate in found if candidate.revision in ids],
        [candidate for candidate in found if candidate.revision not in ids],
    )


async def _require_servers(db: Connection, names: Sequence[str]) -> None:
    unknown = sorted(set(names) - {server.name for server in await servers.every(db)})
    if unknown:
        message = f"there is no server {', '.join(unknown)}; see: tenantry servers list"
        raise Invalid(f"select: {message}", [{"field": "select", "message": message}])


def _pending(compiled: Compiled, chosen: Sequence[Candidate]) -> tuple[Revision, ...]:
    """The revisions that at least one tenant lacks."""
    held = {candidate.revision for candidate in chosen}
    lowest = next((r.id for r in compiled.path if r.id in held), None)
    return _after(compiled.path, lowest) if chosen else ()


def _after(path: Sequence[Revision], current: str | None) -> tuple[Revision, ...]:
    ids = [revision.id for revision in path]
    return tuple(path[ids.index(current) + 1 :]) if current in ids else tuple(path)


def _planned(assigned: Sequence[tuple[Candidate, int]]) -> tuple[PlannedWave, ...]:
    by_wave: dict[int, list[str]] = {}
    for candidate, wave in assigned:
        by_wave.setdefault(wave, []).append(candidate.slug)
    return tuple(
        PlannedWave(wave, len(slugs), tuple(slugs[:_SAMPLE]))
        for wave, slugs in sorted(by_wave.items())
    )


def _of(findings: Sequence[LintFinding], those: Sequence[Revision]) -> tuple[LintFinding, ...]:
    ids = {revision.id for revision in those}
    return tuple(finding for finding in findings if finding.revision in ids)


def _refuse_findings(compiled: Compiled, pending: Sequence[Revision]) -> None:
    refused = [f for f in _of(compiled.findings, pending) if f.overridden is None]
    if refused:
        errors = [
            {"field": f"{f.revision}:{f.rule}", "message": f"{f.message}; {f.remedy}"}
            for f in refused
        ]
        first = f"{refused[0].revision}: {refused[0].message}; {refused[0].remedy}"
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise LintRefused(f"{first}{more}", errors)


def _overridden(compiled: Compiled) -> dict[str, object]:
    """The lint's findings that a revision overrides, with the reasons, for the audit."""
    found = {f"{f.revision}:{f.rule}": f.overridden for f in compiled.findings if f.overridden}
    return {"overrides": found} if found else {}


def _script(compiled: Compiled) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(revision) for revision in compiled.path]


async def _audit(
    db: Connection, caller: Caller, action: str, rollout: Rollout, **facts: object
) -> None:
    about: dict[str, object] = {"template": rollout.template, "to": rollout.to_revision}
    await audit.record(db, caller, Entry(action, show("ro", rollout.id), facts=about | facts))
