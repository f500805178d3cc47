"""Who is named, and who is not: above all, nobody on an even load."""

import uuid
from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.noise import KINDS, THRESHOLDS, Load, judge, quiet_hour, summed, tighter
from control_plane.domain.tenants import TIER_LIMITS, pool_problem
from control_plane.domain.usage import Usage

SECONDS = 90.0
QUARTER = 900.0


def load(name: str, busy: float, past: Sequence[Usage] = (), **values: float) -> Load:
    """``busy`` sessions at any time."""
    used = Usage(busy_ms=busy * SECONDS * 1000, **values)  # type: ignore[arg-type]  # numbers
    return Load(uuid.uuid5(uuid.NAMESPACE_DNS, name), name, used, past)


def past(busy: float, quarters: int = 20, **values: float) -> list[Usage]:
    return [Usage(busy_ms=busy * QUARTER * 1000, **values)] * quarters  # type: ignore[arg-type]


def verdicts(loads: list[Load]) -> list[tuple[str, str]]:
    return [(v.slug, v.level) for v in judge("pg-a", loads, summed(loads), SECONDS)]


def neighbours(count: int, busy: float = 0.05) -> list[Load]:
    return [load(f"n{number}", busy) for number in range(count)]


@given(
    st.integers(2, 40),
    st.floats(0.001, 50),
    st.lists(st.floats(0.5, 2.0), min_size=40, max_size=40),
)
def test_an_even_load_names_nobody(tenants: int, busy: float, uneven: list[float]) -> None:
    """However heavy it is, and although nobody does exactly what the others do."""
    loads = [load(f"t{n}", busy * uneven[n], past(0.01)) for n in range(tenants)]
    for name in KINDS:
        field = KINDS[name].field
        loads = [
            msgspec.structs.replace(
                one,
                usage=msgspec.structs.replace(one.usage, **{field: int(1e9 * busy * uneven[n])}),
            )
            for n, one in enumerate(loads)
        ]
    assert verdicts(loads) == []


@given(st.integers(1, 40), st.floats(1.0, 100), st.floats(0.0001, 0.02))
def test_one_that_dominates_is_named(tenants: int, busy: float, light: float) -> None:
    loads = [*neighbours(tenants, light), load("big", max(busy, 2 * tenants * light))]
    assert verdicts(loads) == [("big", "noisy")]


@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=30),
    st.floats(0, 200),
)
def test_who_is_named_dominates_by_every_threshold(amounts: list[float], seconds: float) -> None:
    loads = [load(f"t{n}", amount) for n, amount in enumerate(amounts)]
    found = judge("pg-a", loads, summed(loads), seconds)
    assert len(found) <= 2  # no three have two fifths each
    for verdict in found:
        assert seconds >= THRESHOLDS.least_seconds
        for one in verdict.evidence:
            assert one.share >= THRESHOLDS.least_share - 0.001
            assert one.times_neighbours >= THRESHOLDS.times_neighbours
            assert one.words in verdict.words


def test_idle_neighbours_make_the_only_one_that_works_noisy_but_one_alone_disturbs_nobody() -> None:
    assert verdicts([*neighbours(9, 0.0), load("big", 3.0)]) == [("big", "noisy")]
    assert verdicts([load("big", 30.0)]) == []


def test_little_is_no_noise_however_large_its_share() -> None:
    assert verdicts([*neighbours(9, 0.0), load("small", 0.9)]) == []


def test_who_always_does_that_and_harms_nobody_is_heavy() -> None:
    loads = [*neighbours(9), load("big", 3.0, past(2.5))]
    (verdict,) = judge("pg-a", loads, summed(loads), SECONDS)
    assert verdict.level == "heavy"
    assert verdict.evidence[0].usual == 2.5
    assert verdict.words == (
        "big as ever, uses much of pg-a: 3.0 sessions busy at any time, 87% of the server; a usual "
        "neighbour has 0.05, its own usual is 2.50; no neighbour is seen to suffer"
    )


def test_who_suffers_is_named_with_numbers_and_makes_the_heavy_noisy() -> None:
    before = past(
        0.05, pooled_transactions=1000, pool_wait_ms=500, pooled_queries=4000, pooled_query_ms=8000
    )
    waits = load(
        "waits", 0.05, before, pooled_transactions=100, pool_wait_ms=900, pooled_queries=400
    )
    slow = load("slow", 0.05, before, pooled_queries=100, pooled_query_ms=2000)
    fine = load("fine", 0.05, before, pooled_queries=100, pooled_query_ms=250)
    queued = load("queued", 0.05, pool_waiting=3, pool_longest_wait_ms=2500)
    loads = [waits, slow, fine, queued, *neighbours(6), load("big", 5.0, past(4.0))]
    (verdict,) = judge("pg-a", loads, summed(loads), SECONDS)
    assert verdict.level == "noisy"
    assert {one.slug: one.words for one in verdict.sufferers} == {
        "waits": "a transaction waits 9.0 ms for its pool, usually 0.5 ms",
        "slow": "a statement takes 20.0 ms, usually 2.0 ms",
        "queued": "clients wait 2,500 ms for its pool",
    }


def test_nobody_is_judged_by_a_glance_or_by_our_own_work() -> None:
    loads = [*neighbours(9), load("big", 50.0)]
    assert judge("pg-a", loads, summed(loads), THRESHOLDS.least_seconds - 1) == []
    loads[-1] = msgspec.structs.replace(loads[-1], ours="backup")
    assert verdicts(loads) == []


def test_the_worst_comes_first() -> None:
    heavy = load("heavy", 5.0, past(5.0))
    loads = [*neighbours(9, 0.001), heavy, load("noisy", 4.5, past(0.1))]
    assert verdicts(loads) == [("noisy", "noisy"), ("heavy", "heavy")]


def test_writes_and_temporary_files_are_told_too() -> None:
    loads = [
        *neighbours(9),
        load("writer", 0.5, rows_written=int(5000 * SECONDS)),
        load("sorter", 0.5, temp_bytes=int(20e6 * SECONDS)),
    ]
    found = judge("pg-a", loads, summed(loads), SECONDS)
    assert {v.slug: [e.resource for e in v.evidence] for v in found} == {
        "writer": ["rows_written"],
        "sorter": ["temp"],
    }


@given(st.sampled_from(list(TIER_LIMITS.values())), st.integers(0, 12))
def test_tightening_goes_down_step_by_step_and_always_leaves_something(
    limits: object, times: int
) -> None:
    found = msgspec.convert(msgspec.to_builtins(limits), type(TIER_LIMITS["standard"]))
    for _ in range(times):
        before, found = found, tighter(found)
        assert found.pool_size == max(1, before.pool_size // 2)
        assert found.login.connections >= 1
        assert found.login.idle_in_transaction_ms == before.login.idle_in_transaction_ms
        assert pool_problem(found) is None


def test_a_quiet_hour_is_known_when_the_whole_day_is() -> None:
    day = dict.fromkeys(range(24), 10.0)
    assert quiet_hour(day | {3: 1.0}) == 3
    assert quiet_hour({3: 1.0}) is None
