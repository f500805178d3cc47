"""Waves, halting, selectors and options: the part of a rollout that needs no database."""

import itertools
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import Invalid
from control_plane.domain.rollouts import (
    DEFAULT_WAVES,
    Candidate,
    Options,
    Selector,
    WaveCounts,
    assign_waves,
    check_options,
    check_selector,
    halt_reason,
    parse_selector,
    parse_share,
    seconds_left,
    wave_name,
)
from control_plane.domain.tenants import TIERS


def candidate(number: int, server: int) -> Candidate:
    return Candidate(UUID(int=number), f"t{number:04}", UUID(int=10_000 + server), "0001")


def counts(**some: int) -> WaveCounts:
    names = ("waiting", "running", "done", "failed", "skipped", "locked")
    return WaveCounts(**{"wave": 1, **dict.fromkeys(names, 0), **some})


candidates = st.lists(st.integers(0, 4), max_size=200).map(
    lambda servers: [candidate(number, server) for number, server in enumerate(servers)]
)
rising = st.lists(st.floats(0.001, 0.999, allow_nan=False), max_size=6, unique=True).map(
    lambda shares: (*sorted(shares), 1.0)
)
options = st.builds(Options, canary=st.integers(0, 300), waves=rising)


@given(candidates, options)
def test_everybody_is_in_one_wave_and_waves_come_in_order(
    fleet: list[Candidate], wanted: Options
) -> None:
    assigned = assign_waves(fleet, wanted)
    assert sorted(c.slug for c, _ in assigned) == [c.slug for c in fleet]
    waves = [wave for _, wave in assigned]
    assert waves == sorted(waves)
    assert set(waves) <= set(range(len(wanted.waves) + 1))
    assert waves.count(0) == min(wanted.canary, len(fleet))


@given(candidates, options)
def test_no_wave_takes_more_than_its_share_of_the_rest(
    fleet: list[Candidate], wanted: Options
) -> None:
    waves = [wave for _, wave in assign_waves(fleet, wanted) if wave]
    for number, share in enumerate(wanted.waves, start=1):
        reached = sum(wave <= number for wave in waves)
        assert reached <= share * len(waves) + 1e-6
        assert reached + 1 > share * len(waves) - 1e-6


@given(candidates)
def test_the_servers_take_turns(fleet: list[Candidate]) -> None:
    ordered = [c for c, _ in assign_waves(fleet, Options(canary=0))]
    on_each = Counter(c.server_id for c in fleet)
    seen: Counter[UUID] = Counter()
    for one in ordered:
        seen[one.server_id] += 1
        # Whoever still has tenants to come is at most one behind.
        assert all(
            seen[one.server_id] - seen[server] <= 1
            for server, whole in on_each.items()
            if seen[server] < whole
        )
    for server in on_each:
        slugs = [c.slug for c in ordered if c.server_id == server]
        assert slugs == sorted(slugs)


def test_a_canary_of_two_meets_two_servers() -> None:
    fleet = [candidate(number, server=number // 50) for number in range(100)]
    canary = [c for c, wave in assign_waves(fleet, Options(canary=2)) if wave == 0]
    assert len({c.server_id for c in canary}) == 2


def test_the_waves_of_a_hundred() -> None:
    fleet = [candidate(number, 0) for number in range(101)]
    sizes = Counter(wave for _, wave in assign_waves(fleet, Options()))
    assert sizes == {0: 1, 1: 5, 2: 20, 3: 75}


@pytest.mark.parametrize(
    ("some", "halt_at", "halted"),
    [
        ({"done": 98, "failed": 2}, 0.02, False),
        ({"done": 97, "failed": 3}, 0.02, True),
        ({"waiting": 97, "failed": 3}, 0.02, True),
        ({"waiting": 99, "failed": 1}, 0.0, True),
        ({"failed": 1}, 0.02, True),
        ({"failed": 100}, 1.0, False),
        ({"skipped": 50, "done": 50}, 0.0, False),
    ],
)
def test_too_many_failures_halt(some: dict[str, int], halt_at: float, *, halted: bool) -> None:
    reason = halt_reason(counts(**some), Options(halt_at=halt_at))
    assert (reason is not None) == halted
    if reason is not None:
        assert f"{some['failed']} of {sum(some.values())} tenants failed in wave 1" in reason
        assert f"more than {halt_at:.0%} halts" in reason


@pytest.mark.parametrize(
    ("locked", "running", "share", "halted"),
    [
        (10, 100, 0.1, False),
        (11, 100, 0.1, True),
        (1, 1, 0.1, False),
        (2, 2, 0.1, True),
        (100, 100, 1.0, False),
    ],
)
def test_too_many_waits_for_locks_halt(
    locked: int, running: int, share: float, *, halted: bool
) -> None:
    found = halt_reason(counts(running=running, locked=locked), Options(halt_at_lock_wait=share))
    assert (found is not None) == halted
    assert found is None or "wait for locks in wave 1" in found


def test_a_wave_is_over_when_nobody_waits_or_runs() -> None:
    assert counts(done=1, failed=2, skipped=3).over
    assert not counts(waiting=1, done=9).over
    assert not counts(running=1).over
    assert counts(waiting=1, running=2, done=3, failed=4, skipped=5, locked=2).size == 15


def test_waves_have_names() -> None:
    assert [wave_name(number) for number in range(3)] == ["the canary", "wave 1", "wave 2"]


@pytest.mark.parametrize(
    ("done", "left", "worked", "expected"),
    [(5, 15, 10.0, 30.0), (10, 0, 3.0, 0.0), (0, 5, 10.0, None), (5, 5, 0.0, None)],
)
def test_the_time_left_follows_the_pace(
    done: int, left: int, worked: float, expected: float | None
) -> None:
    assert seconds_left(done, left, worked) == expected


@pytest.mark.parametrize(
    ("text", "share"),
    [("0%", 0.0), ("2%", 0.02), ("2.5%", 0.025), ("100%", 1.0), (" 5% ", 0.05)],
)
def test_shares_are_percentages(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["", "%", "5", "0.05", "-1%", "101%", "1e2%", "5 %", "nan%", ".5%", "5%%"]
)
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(Invalid, match=r"write a percentage such as 25%"):
        parse_share(text)


@given(st.integers(0, 10_000))
def test_a_share_comes_back_as_it_was_written(hundredths: int) -> None:
    assert round(parse_share(f"{hundredths / 100:g}%") * 10_000) == hundredths


def test_the_defaults_can_be_meant() -> None:
    assert check_options(Options()).waves == DEFAULT_WAVES


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (Options(canary=-1), "canary"),
        (Options(waves=()), "waves"),
        (Options(waves=(0.5,)), "waves"),
        (Options(waves=(0.5, 0.5, 1.0)), "waves"),
        (Options(waves=(0.5, 0.25, 1.0)), "waves"),
        (Options(waves=(0.0, 1.0)), "waves"),
        (Options(waves=(0.5, 1.0, 1.5)), "waves"),
        (Options(max_parallel=0), "max_parallel"),
        (Options(max_parallel=257), "max_parallel"),
        (Options(per_server=0), "per_server"),
        (Options(halt_at=-0.1), "halt_at"),
        (Options(halt_at=1.1), "halt_at"),
        (Options(halt_at_lock_wait=2.0), "halt_at_lock_wait"),
        (Options(lock_timeout=0.0), "lock_timeout"),
        (Options(lock_timeout=61.0), "lock_timeout"),
        (Options(statement_timeout=0.5), "statement_timeout"),
        (Options(halt_at=float("nan")), "halt_at"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(wrong: Options, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_options(wrong)
    assert [error["field"] for error in refused.value.errors] == [field]


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        check_options(Options(canary=-1, waves=(), per_server=0))
    assert [e["field"] for e in refused.value.errors] == ["canary", "waves", "per_server"]
    assert "canary: use 0 or more; waves: use rising shares" in str(refused.value)


@given(options)
def test_rising_shares_that_end_with_the_whole_are_accepted(wanted: Options) -> None:
    assert check_options(wanted) is wanted


def test_a_selector_is_read_from_its_parts() -> None:
    parts = ["tier=standard,enterprise", "server=pg-a", "tenant=acme, apex", "label.team=north=1"]
    assert parse_selector(parts) == Selector(
        tiers=("standard", "enterprise"),
        servers=("pg-a",),
        tenants=("acme", "apex"),
        labels={"team": "north=1"},
    )
    assert parse_selector([]) == Selector()


@pytest.mark.parametrize(
    "part",
    [
        "tier",
        "tier=",
        "tier=,",
        "server= , ",
        "=x",
        "teir=standard",
        "label.team",
        "label.team=",
        "team=north",
    ],
)
def test_a_part_of_another_form_is_refused(part: str) -> None:
    with pytest.raises(Invalid, match="write tier=…") as refused:
        parse_selector([part])
    assert [error["field"] for error in refused.value.errors] == ["select"]


def test_an_unknown_tier_is_named_with_those_there_are() -> None:
    with pytest.raises(Invalid, match=f"no tier gold; use {', '.join(TIERS)}"):
        check_selector(Selector(tiers=("standard", "gold")))


words = st.text("abcdefghij-", min_size=1, max_size=8)


@given(
    st.lists(st.sampled_from(TIERS), max_size=3),
    st.lists(words, max_size=3),
    st.lists(words, max_size=3),
    st.dictionaries(words, words, max_size=3),
)
def test_a_selector_written_out_is_the_same_selector(
    tiers: list[str], servers: list[str], tenants: list[str], labels: dict[str, str]
) -> None:
    lists = {"tier": tiers, "server": servers, "tenant": tenants}
    parts = [f"{key}={','.join(named)}" for key, named in lists.items() if named]
    parts += [f"label.{key}={value}" for key, value in labels.items()]
    for shuffled in itertools.islice(itertools.permutations(parts), 4):
        assert parse_selector(shuffled) == Selector(
            tuple(tiers), tuple(servers), tuple(tenants), labels
        )
