"""What a rollout is: who is migrated, in which order, and when to stop.

A wave is a group of tenants that is finished before the next begins; wave 0 is the canary.
"""

import datetime as dt
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec

from control_plane.domain.errors import Invalid
from control_plane.domain.tenants import TIERS

RolloutState = Literal["running", "paused", "halted", "succeeded", "incomplete", "aborted"]
TargetState = Literal["waiting", "running", "done", "failed", "skipped"]

LIVE: tuple[RolloutState, ...] = ("running", "paused", "halted")
DEFAULT_WAVES = (0.05, 0.25, 1.0)
_MOST_PARALLEL = 256
_LOCK_SECONDS = (0.1, 60)
_STATEMENT_SECONDS = (1, 3600)
_WHOLE = 100
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


class Selector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tenants; every part that is given must fit. An empty one selects the whole fleet."""

    tiers: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a rollout goes about it.

    ``canary`` tenants go first and alone. ``waves`` are cumulative shares (0…1) of the rest.
    ``halt_at`` is the share of a wave that may fail; ``halt_at_lock_wait`` the share that may
    have to come back for a lock. At most ``per_server`` tenants of one server and
    ``max_parallel`` in all are migrated at one time. Times are in seconds.
    """

    canary: int = 1
    waves: tuple[float, ...] = DEFAULT_WAVES
    max_parallel: int = 32
    per_server: int = 8
    halt_at: float = 0.02
    halt_at_lock_wait: float = 0.1
    lock_timeout: float = 2.0
    statement_timeout: float = 600.0


class Candidate(msgspec.Struct, frozen=True):
    """A tenant that a rollout may take."""

    tenant_id: UUID
    slug: str
    server_id: UUID
    revision: str | None


class Rollout(msgspec.Struct, frozen=True):
    """One rollout as recorded; ``script`` is JSON of the compiled revisions, oldest first."""

    id: UUID
    operation_id: UUID
    template: str
    content: str
    to_revision: str
    selector: Selector
    options: Options
    script: list[dict[str, Any]]
    state: RolloutState
    wave: int
    reason: str | None
    created_by: str
    created_at: dt.datetime
    finished_at: dt.datetime | None

    @property
    def live(self) -> bool:
        return self.state in LIVE


class WaveCounts(msgspec.Struct, frozen=True):
    """How far one wave has come; ``locked`` of those running were sent back by a lock."""

    wave: int
    waiting: int
    running: int
    done: int
    failed: int
    skipped: int
    locked: int

    @property
    def size(self) -> int:
        return self.waiting + self.running + self.done + self.failed + self.skipped

    @property
    def over(self) -> bool:
        return self.waiting == 0 and self.running == 0


def assign_waves(candidates: Sequence[Candidate], options: Options) -> list[tuple[Candidate, int]]:
    """Every candidate with its wave: the canary first, then the shares of the rest.

    The order takes one tenant of each server in turn, so that a wave loads all of them and a
    canary of two meets two servers.
    """
    ordered = _in_turn(candidates)
    canary, rest = ordered[: options.canary], ordered[options.canary :]
    assigned = [(candidate, 0) for candidate in canary]
    for number, candidate in enumerate(rest):
        share = (number + 1) / len(rest)
        wave = next(n for n, limit in enumerate(options.waves, 1) if share <= limit + 1e-9)
        assigned.append((candidate, wave))
    return assigned


def halt_reason(counts: WaveCounts, options: Options) -> str | None:
    """Why this wave must stop now, or ``None`` while it may go on."""
    if counts.failed > options.halt_at * counts.size:
        return (
            f"{counts.failed} of {counts.size} tenants failed in {wave_name(counts.wave)}; "
            f"more than {options.halt_at:.0%} halts"
        )
    if counts.locked > options.halt_at_lock_wait * counts.size and counts.locked > 1:
        return (
            f"{counts.locked} of {counts.size} tenants wait for locks in "
            f"{wave_name(counts.wave)}; more than {options.halt_at_lock_wait:.0%} halts"
        )
    return None


def wave_name(wave: int) -> str:
    return "the canary" if wave == 0 else f"wave {wave}"


def seconds_left(done: int, left: int, seconds_worked: float) -> float | None:
    """When the rest will be done at the pace so far; ``None`` before anything is."""
    return left * seconds_worked / done if done and seconds_worked > 0 else None


def parse_share(text: str) -> float:
    """``25%`` as 0.25.

    Raises:
        Invalid: it is no percentage from 0% to 100%.
    """
    found = _SHARE.fullmatch(text.strip())
    if found is None or not 0 <= float(found[1]) <= _WHOLE:
        raise Invalid(f"{text!r} is no share; write a percentage such as 25%")
    return float(found[1]) / _WHOLE


def check_options(options: Options) -> Options:
    """The options themselves.

    Raises:
        Invalid: one of them cannot be meant; every field is named with its remedy.
    """
    waves = options.waves
    rising = all(a < b for a, b in itertools.pairwise(waves))
    parallel, share = f"use 1 to {_MOST_PARALLEL}", "use a share from 0% to 100%"
    _refuse(
        {
            "canary": ("use 0 or more", options.canary < 0),
            "waves": (
                "use rising shares that end with 100%, such as 5%,25%,100%",
                not (waves and rising and waves[0] > 0 and waves[-1] == 1.0),
            ),
            "max_parallel": (parallel, not 1 <= options.max_parallel <= _MOST_PARALLEL),
            "per_server": (parallel, not 1 <= options.per_server <= _MOST_PARALLEL),
            "halt_at": (share, not 0 <= options.halt_at <= 1),
            "halt_at_lock_wait": (share, not 0 <= options.halt_at_lock_wait <= 1),
            "lock_timeout": (
                f"use {_LOCK_SECONDS[0]} to {_LOCK_SECONDS[1]} seconds",
                not _LOCK_SECONDS[0] <= options.lock_timeout <= _LOCK_SECONDS[1],
            ),
            "statement_timeout": (
                f"use {_STATEMENT_SECONDS[0]} to {_STATEMENT_SECONDS[1]} seconds",
                not _STATEMENT_SECONDS[0] <= options.statement_timeout <= _STATEMENT_SECONDS[1],
            ),
        }
    )
    return options


def check_selector(selector: Selector) -> Selector:
    """The selector itself.

    Raises:
        Invalid: a tier that there is not.
    """
    unknown = sorted(set(selector.tiers) - set(TIERS))
    _refuse({"select": (f"no tier {', '.join(unknown)}; use {', '.join(TIERS)}", bool(unknown))})
    return selector


def parse_selector(parts: Sequence[str]) -> Selector:
    """A selector from ``tier=…``, ``server=…``, ``tenant=…`` and ``label.KEY=…``; commas list.

    Raises:
        Invalid: a part has another form.
    """
    lists: dict[str, list[str]] = {"tier": [], "server": [], "tenant": []}
    labels: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        words = [word.strip() for word in value.split(",") if word.strip()]
        if key.startswith("label.") and value:
            labels[key.removeprefix("label.")] = value
        elif key in lists and words:
            lists[key] += words
        else:
            message = f"{part!r}: write tier=…, server=…, tenant=… or label.KEY=…"
            raise Invalid(f"select: {message}", [{"field": "select", "message": message}])
    return check_selector(
        Selector(tuple(lists["tier"]), tuple(lists["server"]), tuple(lists["tenant"]), labels)
    )


def _refuse(wrong: Mapping[str, tuple[str, bool]]) -> None:
    errors = [{"field": field, "message": words} for field, (words, bad) in wrong.items() if bad]
    if errors:
        raise Invalid("; ".join(f"{e['field']}: {e['message']}" for e in errors), errors)


def _in_turn(candidates: Sequence[Candidate]) -> list[Candidate]:
    turns: dict[UUID, int] = {}
    keyed = []
    for candidate in candidates:
        turn = turns[candidate.server_id] = turns.get(candidate.server_id, -1) + 1
        keyed.append((turn, candidate))
    return [candidate for _, candidate in sorted(keyed, key=lambda pair: pair[0])]
