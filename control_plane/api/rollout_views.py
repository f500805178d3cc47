"""The JSON of rollouts: what was asked for, how far it is, and what went wrong."""

import datetime as dt
from collections.abc import Sequence
from typing import Literal

import msgspec

from control_plane.api.revisions import LintFindingView, RevisionView, finding_views, revision_views
from control_plane.api.views import ErrorView
from control_plane.catalog.rollout_progress import Failures, Pace, Totals
from control_plane.catalog.rollouts import Target
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.rollouts import (
    Options,
    Rollout,
    RolloutState,
    Selector,
    TargetState,
    WaveCounts,
    seconds_left,
    wave_name,
)
from control_plane.services.rollouts import Preview, Progress


class OptionsView(msgspec.Struct, frozen=True):
    """How it goes about it: shares as percentages, times in seconds."""

    canary: int
    waves: list[str]
    max_parallel: int
    per_server: int
    halt_at: str
    halt_at_lock_wait: str
    lock_timeout: float
    statement_timeout: float


class RolloutSummary(msgspec.Struct, frozen=True):
    """One rollout in a list; ``reason`` says why it is not running."""

    id: str
    operation: str
    template: str
    to_revision: str
    state: RolloutState
    reason: str | None
    done: int
    failed: int
    total: int
    created_by: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


class WaveView(msgspec.Struct, frozen=True):
    """One wave; 0 is the canary. ``locked`` of those running wait for a lock."""

    wave: int
    name: str
    tenants: int
    waiting: int
    running: int
    done: int
    failed: int
    skipped: int
    locked: int


class FailureView(msgspec.Struct, frozen=True):
    """Tenants that failed alike, with the message and the slugs of the first ones."""

    code: str
    tenants: int
    message: str
    sample: list[str]


class RolloutView(RolloutSummary, frozen=True):
    """One rollout as far as it is.

    ``detail`` is what its operation does now; ``seconds_left`` an estimate at the present pace.
    """

    selector: Selector
    options: OptionsView
    wave: int
    detail: str | None
    seconds_left: float | None
    waves: list[WaveView]
    failures: list[FailureView]


class RolloutPage(msgspec.Struct, frozen=True):
    items: list[RolloutSummary]
    next_cursor: str | None


class TargetView(msgspec.Struct, frozen=True):
    """One tenant of a rollout; ``error`` of a running one is why it is tried again."""

    tenant: str
    server: str
    wave: int
    state: TargetState
    from_revision: str | None
    operation: str | None
    attempts: int
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    seconds: float | None
    error: ErrorView | None


class TargetPage(msgspec.Struct, frozen=True):
    items: list[TargetView]
    next_cursor: str | None


class PlannedWaveView(msgspec.Struct, frozen=True):
    """A wave before it begins, with the slugs of the first few of its tenants."""

    wave: int
    name: str
    tenants: int
    sample: list[str]


class RolloutPreview(msgspec.Struct, frozen=True):
    """What a rollout would do; nothing was changed.

    ``refusal`` is why it would not be accepted at this moment. ``left_out`` are tenants that fit
    and whose revision is not one of the template's.
    """

    dry_run: Literal[True]
    template: str
    to_revision: str
    tenants: int
    waves: list[PlannedWaveView]
    left_out: list[str]
    options: OptionsView
    revisions: list[RevisionView]
    findings: list[LintFindingView]
    refusal: str | None


def summary_view(rollout: Rollout, totals: Totals | None) -> RolloutSummary:
    """The JSON of a rollout in a list; ``totals`` is missing where no tenant needed it."""
    return RolloutSummary(
        id=show("ro", rollout.id),
        operation=show("op", rollout.operation_id),
        template=rollout.template,
        to_revision=rollout.to_revision,
        state=rollout.state,
        reason=rollout.reason,
        done=totals.done if totals else 0,
        failed=totals.failed if totals else 0,
        total=totals.tenants if totals else 0,
        created_by=rollout.created_by,
        created_at=rollout.created_at,
        finished_at=rollout.finished_at,
    )


def rollout_view(
    progress: Progress, operation: Operation, failures: Sequence[Failures], pace: Pace
) -> RolloutView:
    """The JSON of a rollout."""
    rollout, waves = progress.rollout, progress.waves
    totals = Totals(
        rollout_id=rollout.id,
        tenants=sum(wave.size for wave in waves),
        done=sum(wave.done for wave in waves),
        failed=sum(wave.failed for wave in waves),
    )
    running = next((step for step in operation.steps if step.state == "running"), None)
    return RolloutView(
        **msgspec.structs.asdict(summary_view(rollout, totals)),
        selector=rollout.selector,
        options=options_view(rollout.options),
        wave=rollout.wave,
        detail=(running.detail or running.name) if running else None,
        seconds_left=_seconds_left(rollout, waves, pace),
        waves=[wave_view(counts) for counts in waves],
        failures=[FailureView(f.code, f.tenants, f.message, f.sample) for f in failures],
    )


def wave_view(counts: WaveCounts) -> WaveView:
    """The JSON of a wave."""
    return WaveView(
        wave=counts.wave,
        name=wave_name(counts.wave),
        tenants=counts.size,
        waiting=counts.waiting,
        running=counts.running,
        done=counts.done,
        failed=counts.failed,
        skipped=counts.skipped,
        locked=counts.locked,
    )


def target_view(target: Target) -> TargetView:
    """The JSON of one tenant of a rollout."""
    error = None
    if target.error_code is not None or target.error_message is not None:
        error = ErrorView(target.error_code or target.state, target.error_message or "")
    return TargetView(
        tenant=target.slug,
        server=target.server,
        wave=target.wave,
        state=target.state,
        from_revision=target.from_revision,
        operation=show("op", target.operation_id) if target.operation_id else None,
        attempts=target.attempts,
        started_at=target.started_at,
        finished_at=target.finished_at,
        seconds=target.seconds,
        error=error,
    )


def preview_view(preview: Preview, options: Options, refusal: str | None) -> RolloutPreview:
    """The JSON of a dry run."""
    return RolloutPreview(
        dry_run=True,
        template=preview.template,
        to_revision=preview.to_revision,
        tenants=sum(wave.tenants for wave in preview.waves),
        waves=[
            PlannedWaveView(each.wave, wave_name(each.wave), each.tenants, list(each.sample))
            for each in preview.waves
        ],
        left_out=list(preview.left_out),
        options=options_view(options),
        revisions=revision_views(preview.revisions),
        findings=finding_views(preview.findings),
        refusal=refusal,
    )


def options_view(options: Options) -> OptionsView:
    """The JSON of options."""
    return OptionsView(
        canary=options.canary,
        waves=[_percent(share) for share in options.waves],
        max_parallel=options.max_parallel,
        per_server=options.per_server,
        halt_at=_percent(options.halt_at),
        halt_at_lock_wait=_percent(options.halt_at_lock_wait),
        lock_timeout=options.lock_timeout,
        statement_timeout=options.statement_timeout,
    )


def _seconds_left(rollout: Rollout, waves: Sequence[WaveCounts], pace: Pace) -> float | None:
    left = sum(wave.waiting + wave.running for wave in waves)
    if rollout.state != "running" or not left:
        return None
    return seconds_left(pace.done, left, pace.seconds)


def _percent(share: float) -> str:
    return f"{share * 100:g}%"
