"""Grandfather, father, son: what is kept, and what no rule may take."""

import datetime as dt
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.retention import Candidate, keep
from control_plane.domain.schedules import Policy

NOW = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)
RULES = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
ONLY_LAST = Policy(
    cron="0 2 * * *",
    timezone="UTC",
    jitter_minutes=0,
    rpo_minutes=1800,
    drill_days=30,
    keep_last=1,
    keep_daily=0,
    keep_weekly=0,
    keep_monthly=0,
    keep_yearly=0,
)


def policy(**rules: object) -> Policy:
    return msgspec.structs.replace(ONLY_LAST, **rules)


def backup(number: int, hours_ago: float, **facts: object) -> Candidate:
    base = Candidate(
        id=UUID(int=number),
        state="complete",
        cause="schedule",
        snapshot_at=NOW - dt.timedelta(hours=hours_ago),
        verified=False,
        pinned=False,
    )
    return msgspec.structs.replace(base, **facts)


def kept(backups: list[Candidate], rules: Policy, *, held: bool = False) -> list[int]:
    return sorted(one.int for one in keep(backups, rules, NOW, held=held))


candidates = st.lists(
    st.builds(
        Candidate,
        id=st.uuids(),
        state=st.sampled_from(["complete", "complete", "complete", "corrupt"]),
        cause=st.sampled_from(["schedule", "schedule", "manual", "archive", "final"]),
        snapshot_at=st.integers(0, 3 * 365 * 24).map(lambda h: NOW - dt.timedelta(hours=h)),
        verified=st.booleans(),
        pinned=st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
    unique_by=lambda one: one.id,
)
numbers = st.integers(0, 8)
policies = st.builds(
    policy,
    keep_last=st.integers(1, 5),
    keep_daily=numbers,
    keep_weekly=numbers,
    keep_monthly=numbers,
    keep_yearly=st.integers(0, 3),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)


@given(candidates, policies)
def test_it_never_takes_the_newest_nor_the_last_proof_nor_what_is_pinned(
    backups: list[Candidate], rules: Policy
) -> None:
    stay = keep(backups, rules, NOW, held=False)
    complete = [one for one in backups if one.state == "complete"]
    if complete:
        youngest = max(one.snapshot_at for one in complete)
        assert any(one.id in stay for one in complete if one.snapshot_at == youngest)
    verified = [one for one in complete if one.verified]
    if verified:
        youngest = max(one.snapshot_at for one in verified)
        assert any(one.id in stay for one in verified if one.snapshot_at == youngest)
    assert {one.id for one in backups if one.pinned} <= stay


@given(candidates, policies)
def test_pruning_twice_takes_nothing_more(backups: list[Candidate], rules: Policy) -> None:
    stay = keep(backups, rules, NOW, held=False)
    assert keep((one for one in backups if one.id in stay), rules, NOW, held=False) == stay


@given(candidates, policies, st.sampled_from(RULES), st.integers(1, 5))
def test_a_rule_that_keeps_more_takes_nothing(
    backups: list[Candidate], rules: Policy, rule: str, more: int
) -> None:
    generous = msgspec.structs.replace(rules, **{rule: getattr(rules, rule) + more})
    assert keep(backups, rules, NOW, held=False) <= keep(backups, generous, NOW, held=False)


@given(candidates, policies)
def test_under_legal_hold_everything_stays(backups: list[Candidate], rules: Policy) -> None:
    assert keep(backups, rules, NOW, held=True) == {one.id for one in backups}


@given(candidates, policies)
def test_no_more_stay_than_the_rules_and_the_exceptions_allow(
    backups: list[Candidate], rules: Policy
) -> None:
    plain = [
        msgspec.structs.replace(one, state="complete", cause="schedule", pinned=False)
        for one in backups
    ]
    most = sum(getattr(rules, rule) for rule in RULES) + 1
    assert len(keep(plain, rules, NOW, held=False)) <= most


def test_the_last_ones_stay_and_older_ones_go() -> None:
    backups = [backup(n, n) for n in range(10)]
    assert kept(backups, policy(keep_last=3)) == [0, 1, 2]


def test_a_day_is_represented_by_its_youngest_backup() -> None:
    # 12:00 today, 06:00 today, then every six hours back.
    backups = [backup(n, 6 * n) for n in range(12)]
    assert kept(backups, policy(keep_daily=3)) == [0, 3, 7]


def test_a_period_without_a_backup_counts_for_nothing() -> None:
    backups = [backup(0, 0), backup(1, 24 * 10), backup(2, 24 * 20), backup(3, 24 * 21)]
    assert kept(backups, policy(keep_daily=3)) == [0, 1, 2]


def test_days_are_those_of_the_time_zone() -> None:
    # 23:30 and 21:30 UTC on the fifth: in Berlin (UTC+2) these are the sixth and the fifth.
    backups = [backup(0, 12.5), backup(1, 14.5)]
    assert kept(backups, policy(keep_daily=2)) == [0]
    assert kept(backups, policy(keep_daily=2, timezone="Europe/Berlin")) == [0, 1]


def test_weeks_begin_on_monday_and_belong_to_the_year_of_their_thursday() -> None:
    sunday = dt.datetime(2026, 1, 4, 12, tzinfo=dt.UTC)
    new_year = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    monday_before = dt.datetime(2025, 12, 29, 12, tzinfo=dt.UTC)
    sunday_before = dt.datetime(2025, 12, 28, 12, tzinfo=dt.UTC)
    days = (sunday, new_year, monday_before, sunday_before)
    backups = [backup(n, 0, snapshot_at=day) for n, day in enumerate(days)]
    assert kept(backups, policy(keep_weekly=4)) == [0, 3]


def test_months_and_years() -> None:
    months = [dt.datetime(2026 - n // 12, 12 - n % 12, 5, tzinfo=dt.UTC) for n in range(30)]
    backups = [backup(n, 0, snapshot_at=day) for n, day in enumerate(months)]
    assert kept(backups, policy(keep_monthly=3)) == [0, 1, 2]
    assert kept(backups, policy(keep_yearly=3)) == [0, 12, 24]


def test_a_period_is_represented_by_a_proven_backup_if_it_has_one() -> None:
    backups = [backup(0, 0), backup(1, 30), backup(2, 32, verified=True), backup(3, 33)]
    backups.append(backup(4, 60, verified=True))
    assert kept(backups, policy(keep_daily=2)) == [0, 2]


def test_the_last_proof_stays_however_old_it_is() -> None:
    backups = [backup(0, 0), backup(1, 10), backup(2, 24 * 400, verified=True)]
    backups.append(backup(3, 24 * 500, verified=True))
    assert kept(backups, policy()) == [0, 2]


def test_a_backup_made_by_hand_stays_as_many_days_as_days_are_kept() -> None:
    backups = [backup(0, 0), backup(1, 1), backup(2, 47, cause="manual")]
    backups.append(backup(3, 48, cause="manual"))
    assert kept(backups, policy(keep_daily=2)) == [0, 2]


def test_a_corrupt_one_represents_nothing_and_goes_once_a_proof_is_younger() -> None:
    corrupt = [backup(1, 10, state="corrupt"), backup(2, 30, state="corrupt", verified=True)]
    backups = [backup(0, 40), *corrupt]
    assert kept(backups, policy()) == [0, 1, 2]
    proven = [backup(3, 20, verified=True), *backups]
    assert kept(proven, policy()) == [1, 3]
    assert kept(proven, policy(), held=True) == [0, 1, 2, 3]


def test_the_pinned_backup_of_an_archived_tenant_stays() -> None:
    backups = [backup(0, 0), backup(1, 9000, pinned=True, cause="archive")]
    assert kept(backups, policy()) == [0, 1]


def test_nothing_is_kept_of_nothing() -> None:
    assert kept([], policy()) == []
