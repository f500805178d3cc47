"""Who disturbs whom on a server: by numbers, against neighbours and against its own past.

A tenant is named when it dominates its server in some resource: much of it in absolute terms, a
large share, and far more than its neighbours use. Whoever always does that and harms nobody is
``heavy``; who suddenly does, or whose neighbours suffer, is ``noisy``.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.domain.tenants import TierLimits, pooled_connections
from control_plane.domain.usage import Usage, share, total

Level = Literal["heavy", "noisy"]
Resource = Literal["time", "rows_written", "blocks_read", "temp"]

_QUARTER_SECONDS = 900.0
# A median absolute deviation is so much smaller than the deviation of a normal distribution.
_MAD_TO_SIGMA = 1.4826
# Neighbours that are all alike deviate by nothing; a tenth of what they use is still no news.
_LEAST_SPREAD = 0.1
_LARGEST_RATIO = 1000.0


class Kind(msgspec.Struct, frozen=True):
    """A resource: the field that counts it, and below which rate no server notices it.

    ``floor`` and what is shown are per second, divided by ``unit``.
    """

    field: str
    floor: float
    unit: float
    words: str


KINDS: dict[Resource, Kind] = {
    # One statement that always runs: less than that occupies no core.
    "time": Kind("busy_ms", 1.0, 1000.0, "sessions busy at any time"),
    # What one busy session writes by single rows; less is no load for a disk.
    "rows_written": Kind("rows_written", 1000.0, 1.0, "rows written a second"),
    # 16 MB a second from outside of the buffers.
    "blocks_read": Kind("blocks_read", 2000.0, 1.0, "blocks read a second"),
    "temp": Kind("temp_bytes", 10.0, 1_000_000.0, "MB of temporary files a second"),
}


class Thresholds(msgspec.Struct, frozen=True):
    """Where noise begins; every number is a judgement, and this is where it is made."""

    # A server is looked at for so many seconds before anything is said.
    least_seconds: float = 10.0
    # Two fifths of a shared server: no three tenants can reach it together.
    least_share: float = 0.4
    # As much as four usual neighbours; an even load has everybody at one.
    times_neighbours: float = 4.0
    # In robust standard deviations: an even load stays below three, uneven neighbours too.
    deviations: float = 5.0
    # Three times its own usual is a change, not a busy morning.
    times_own: float = 3.0
    # Two hours in which it worked make a past that says something.
    least_quarters: int = 8
    # Neighbours whose statements take twice their usual time, and a millisecond more, suffer.
    times_slower: float = 2.0
    least_slower_ms: float = 1.0
    # A wait for the pool that nobody has to get used to, with and without a known past.
    least_wait_ms: float = 5.0
    unbearable_wait_ms: float = 100.0
    # Fewer statements than this have no usual time.
    least_statements: int = 20


THRESHOLDS = Thresholds()


class Load(msgspec.Struct, frozen=True):
    """One tenant on a server: now, in the time looked at, and in quarters of hours before.

    ``ours`` names work of our own on it, whose load is not the tenant's doing.
    """

    tenant_id: UUID
    slug: str
    usage: Usage
    past: Sequence[Usage] = ()
    ours: str | None = None


class Evidence(msgspec.Struct, frozen=True):
    """One resource that a tenant dominates. Rates are in the unit of its ``Kind``.

    ``usual`` is what its own past shows, ``None`` while it has too little of it.
    """

    resource: Resource
    rate: float
    share: float
    neighbours: float
    times_neighbours: float
    deviations: float
    usual: float | None
    times_usual: float | None
    words: str


class Sufferer(msgspec.Struct, frozen=True):
    """A neighbour that waits, with the numbers in words."""

    tenant_id: UUID
    slug: str
    words: str


class Verdict(msgspec.Struct, frozen=True):
    """What there is to say about one tenant of a server."""

    tenant_id: UUID
    slug: str
    level: Level
    evidence: list[Evidence]
    sufferers: list[Sufferer]
    words: str


def rate(usage: Usage, resource: Resource, seconds: float) -> float:
    """How much of a resource was used, per second and in its unit."""
    kind = KINDS[resource]
    return float(getattr(usage, kind.field)) / kind.unit / seconds if seconds > 0 else 0.0


def suspects(
    loads: Sequence[Load], of_server: Usage, seconds: float, limits: Thresholds = THRESHOLDS
) -> list[Load]:
    """Those who dominate in some resource: whose past is worth reading."""
    return [load for load in loads if _dominated(load, loads, of_server, seconds, limits)]


def judge(
    server: str,
    loads: Sequence[Load],
    of_server: Usage,
    seconds: float,
    limits: Thresholds = THRESHOLDS,
) -> list[Verdict]:
    """The tenants to name, the worst first; mostly nobody.

    ``of_server`` is what all databases of the server used in these ``seconds``.
    """
    named = {load.tenant_id for load in suspects(loads, of_server, seconds, limits)}
    hurt = [
        found
        for load in loads
        if load.tenant_id not in named and (found := _suffers(load, limits)) is not None
    ]
    verdicts = [
        _verdict(server, load, _dominated(load, loads, of_server, seconds, limits), hurt, limits)
        for load in loads
        if load.tenant_id in named
    ]
    return sorted(verdicts, key=lambda v: (v.level != "noisy", -max(e.share for e in v.evidence)))


def tighter(limits: TierLimits) -> TierLimits:
    """Half of the pools and connections: the next rung of the ladder, never down to nothing.

    Statements keep their time: one that was allowed yesterday must not fail today.
    """
    pools = _half(limits.pool_size), _half(limits.session_pool_size)
    connections = max(_half(limits.login.connections), pooled_connections(*pools) + 1)
    login = msgspec.structs.replace(
        limits.login, connections=min(connections, limits.login.connections)
    )
    return TierLimits(login, *pools)


def quiet_hour(past: Mapping[int, float]) -> int | None:
    """The hour of the day (UTC) in which least was used, if the whole day is known."""
    return min(past, key=lambda hour: past[hour]) if len(past) == 24 else None  # noqa: PLR2004 - the hours of a day


def _dominated(
    load: Load, loads: Sequence[Load], of_server: Usage, seconds: float, limits: Thresholds
) -> list[Evidence]:
    if seconds < limits.least_seconds or len(loads) == 1 or load.ours is not None:
        return []
    found = (_evidence(load, loads, of_server, seconds, name, limits) for name in KINDS)
    return [one for one in found if one is not None]


def _evidence(
    load: Load,
    loads: Sequence[Load],
    of_server: Usage,
    seconds: float,
    resource: Resource,
    limits: Thresholds,
) -> Evidence | None:
    kind = KINDS[resource]
    own = rate(load.usage, resource, seconds)
    part = share(own, rate(of_server, resource, seconds))
    if own < kind.floor or part < limits.least_share:
        return None
    others = [
        value
        for other in loads
        if other is not load and (value := rate(other.usage, resource, seconds)) > 0
    ]
    middle = statistics.median(others) if others else 0.0
    times, deviations = _ratio(own, middle), _deviations(own, others)
    if times < limits.times_neighbours or deviations < limits.deviations:
        return None
    usual = _usual(load, resource, limits)
    return Evidence(
        resource=resource,
        rate=round(own, 2),
        share=round(part, 3),
        neighbours=round(middle, 3),
        times_neighbours=round(times, 1),
        deviations=round(deviations, 1),
        usual=None if usual is None else round(usual, 3),
        times_usual=None if usual is None else round(_ratio(own, usual), 1),
        words=_words(kind, own, part, middle, usual),
    )


def _usual(load: Load, resource: Resource, limits: Thresholds) -> float | None:
    if len(load.past) < limits.least_quarters:
        return None
    return statistics.median(rate(one, resource, _QUARTER_SECONDS) for one in load.past)


def _ratio(value: float, base: float) -> float:
    return min(_LARGEST_RATIO, value / base) if base > 0 else _LARGEST_RATIO


def _deviations(value: float, others: Sequence[float]) -> float:
    if not others:
        return _LARGEST_RATIO
    middle = statistics.median(others)
    spread = _MAD_TO_SIGMA * statistics.median(abs(one - middle) for one in others)
    return _ratio(value - middle, max(spread, _LEAST_SPREAD * middle))


def _verdict(
    server: str,
    load: Load,
    evidence: list[Evidence],
    hurt: list[Sufferer],
    limits: Thresholds,
) -> Verdict:
    unusual = any(
        one.times_usual is None or one.times_usual >= limits.times_own for one in evidence
    )
    level: Level = "noisy" if unusual or hurt else "heavy"
    said = "; ".join(one.words for one in evidence)
    if hurt:
        listed = ", ".join(f"{one.slug} ({one.words})" for one in hurt)
        ending = f"{len(hurt)} of its neighbours suffer: {listed}"
    else:
        ending = "no neighbour is seen to suffer"
    manner = "disturbs" if level == "noisy" else "as ever, uses much of"
    return Verdict(
        load.tenant_id,
        load.slug,
        level,
        evidence,
        hurt,
        f"{load.slug} {manner} {server}: {said}; {ending}",
    )


def _words(kind: Kind, own: float, part: float, middle: float, usual: float | None) -> str:
    than = f"a usual neighbour has {middle:,.2f}" if middle > 0 else "its neighbours have none"
    past = "its past is too short to compare" if usual is None else f"its own usual is {usual:,.2f}"
    return f"{own:,.1f} {kind.words}, {part:.0%} of the server; {than}, {past}"


def _suffers(load: Load, limits: Thresholds) -> Sufferer | None:
    words = _waits(load, limits) or _is_slow(load, limits)
    return Sufferer(load.tenant_id, load.slug, words) if words else None


def _waits(load: Load, limits: Thresholds) -> str | None:
    now = _per(load.usage.pool_wait_ms, load.usage.pooled_transactions, limits)
    if now is None:
        longest = load.usage.pool_longest_wait_ms
        if load.usage.pool_waiting and longest >= limits.unbearable_wait_ms:
            return f"clients wait {longest:,.0f} ms for its pool"
        return None
    before = [
        value
        for one in load.past
        if (value := _per(one.pool_wait_ms, one.pooled_transactions, limits)) is not None
    ]
    if len(before) < limits.least_quarters:
        known = now >= limits.unbearable_wait_ms
        return f"a transaction waits {now:,.0f} ms for its pool" if known else None
    usual = statistics.median(before)
    if now < limits.least_wait_ms or now < limits.times_slower * usual:
        return None
    return f"a transaction waits {now:,.1f} ms for its pool, usually {usual:,.1f} ms"


def _is_slow(load: Load, limits: Thresholds) -> str | None:
    now = _per(load.usage.pooled_query_ms, load.usage.pooled_queries, limits)
    before = [
        value
        for one in load.past
        if (value := _per(one.pooled_query_ms, one.pooled_queries, limits)) is not None
    ]
    if now is None or len(before) < limits.least_quarters:
        return None
    usual = statistics.median(before)
    if now < limits.times_slower * usual or now < usual + limits.least_slower_ms:
        return None
    return f"a statement takes {now:,.1f} ms, usually {usual:,.1f} ms"


def _per(amount: float, count: int, limits: Thresholds) -> float | None:
    return amount / count if count >= limits.least_statements else None


def _half(value: int) -> int:
    return max(1, value // 2) if value else value


def summed(loads: Sequence[Load]) -> Usage:
    """What these tenants used together."""
    return total(load.usage for load in loads)
