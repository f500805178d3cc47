"""Counters of two looks become what happened between them, whatever happens to the counters."""

import datetime as dt
import uuid

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.usage import (
    GRAINS,
    KEPT,
    Counters,
    Look,
    Usage,
    between,
    carried,
    grain_for,
    total,
)
from control_plane.router.pool_meter import PoolMeter

ZERO = Counters(*[0] * len(Counters.__struct_fields__))
COUNTED = [
    name
    for name in Counters.__struct_fields__
    if name not in ("reset_at", "connections", "running", "blocked")
]
counts = st.integers(0, 10**12)


def counters(**values: float) -> Counters:
    return msgspec.structs.replace(ZERO, **values)


@st.composite
def rising(draw: st.DrawFn) -> list[Counters]:
    """The same counters at several moments; none ever falls, and sessions are many enough."""
    held = dict.fromkeys(COUNTED, 0)
    found: list[Counters] = []
    for _ in range(draw(st.integers(2, 6))):
        for name in COUNTED:
            held[name] += draw(counts)
        found.append(counters(**held, connections=10**12))
    return found


def walk(looks: list[Counters]) -> list[Usage]:
    kept: Look | None = None
    found: list[Usage] = []
    for at, held in enumerate(looks):
        now = Look(float(at), {"t": held})
        found += between(kept, now).values()
        kept = carried(kept, now)
    return found


@given(rising())
def test_nothing_is_lost_or_counted_twice(looks: list[Counters]) -> None:
    used = total(walk(looks))
    for name in COUNTED:
        assert getattr(used, name) == getattr(looks[-1], name) - getattr(looks[0], name)


@given(rising(), rising())
def test_a_reset_loses_only_what_nobody_saw(first: list[Counters], second: list[Counters]) -> None:
    later = [msgspec.structs.replace(one, reset_at=1.0) for one in second]
    used = total(walk(first + later))
    for name in COUNTED:
        seen = getattr(first[-1], name) - getattr(first[0], name) + getattr(second[-1], name)
        assert getattr(used, name) == seen
        assert getattr(used, name) >= 0


def test_a_crash_without_a_word_is_noticed_by_counters_that_fell() -> None:
    used = walk([counters(commits=900, rows_read=50), counters(commits=7, rows_read=60)])
    assert (used[0].commits, used[0].rows_read) == (7, 60)


def test_a_statement_that_ended_a_moment_ago_is_counted_once() -> None:
    """Its time is missing from both places until the server flushes its statistics."""
    used = walk([counters(busy_ms=b, connections=1) for b in (0.0, 5000.0, 1000.0, 6000.0)])
    assert [one.busy_ms for one in used] == [5000.0, 0.0, 1000.0]


def test_what_a_server_tells_hours_late_is_no_burst() -> None:
    """It keeps the time of a session that touches no table until that session ends."""
    looks = [counters(connections=3, running=3) for _ in range(3)]
    used = walk([*looks, counters(busy_ms=3 * 3600 * 1000.0)])
    assert [one.busy_ms for one in used] == [3000.0, 3000.0, 3 * 11 * 1000.0]


def test_running_by_chance_at_one_look_is_not_running_all_the_time() -> None:
    used = walk([counters(connections=2, running=n, busy_ms=0.0) for n in (0, 2, 0, 1)])
    assert [one.busy_ms for one in used] == [0.0, 0.0, 0.0]


def test_the_first_look_says_nothing_and_a_new_database_everything() -> None:
    first = Look(0.0, {"a": counters(commits=5)})
    assert between(None, first) == {}
    assert between(first, first) == {}
    second = Look(1.0, {"a": counters(commits=6), "b": counters(commits=3)})
    assert {name: one.commits for name, one in between(first, second).items()} == {"a": 1, "b": 3}
    gone = Look(2.0, {"b": counters(commits=3)})
    assert between(second, gone)["b"].idle


def test_peaks_are_not_added_up() -> None:
    assert total([Usage(connections=3, commits=1), Usage(connections=2, commits=1)]) == Usage(
        connections=3, commits=2
    )


@given(st.timedeltas(dt.timedelta(minutes=1), dt.timedelta(days=400)))
def test_a_chart_is_made_of_what_is_still_kept(span: dt.timedelta) -> None:
    grain = grain_for(span)
    assert grain in GRAINS
    assert KEPT[grain] >= span
    assert span / dt.timedelta(minutes=grain) <= 700


def stats(name: str, queries: int, wait_us: int) -> dict[str, object]:
    return {
        "database": name,
        "total_xact_count": queries,
        "total_query_count": queries,
        "total_query_time": 1000 * queries,
        "total_wait_time": wait_us,
    }


def test_both_endpoints_of_a_tenant_are_added_and_a_new_pooler_begins_at_zero() -> None:
    tenants = {"acme": uuid.UUID(int=1)}
    queue = {"database": "acme", "cl_waiting": 2, "maxwait": 1, "maxwait_us": 500_000}
    meter = PoolMeter()
    assert meter.read([stats("acme", 10, 0)], [], tenants) == []
    (found,) = meter.read(
        [stats("acme", 15, 2000), stats("acme_session", 1, 0), stats("pgbouncer", 99, 0)],
        [queue],
        tenants,
    )
    assert (found.queries, found.wait_ms, found.waiting, found.longest_wait_ms) == (6, 2, 2, 1500)
    (found,) = meter.read([stats("acme", 4, 1000)], [], tenants)
    assert (found.queries, found.query_ms, found.wait_ms) == (4, 4, 1)
    assert meter.read([stats("acme", 4, 1000)], [], tenants) == []
