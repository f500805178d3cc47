"""Slots, spread and RPO: clocks that are put forward and back, leap days, outages, nonsense."""

import datetime as dt
import itertools
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import Invalid
from control_plane.domain.schedules import (
    Policy,
    Rhythm,
    Turn,
    catch_up,
    check_policy,
    first_turn,
    fitting_jitter,
    is_breached,
    least_rpo_minutes,
    newest_slot,
    next_slot,
    present_turn,
    rhythm,
    slots_after,
    turn_for,
)

BERLIN, NEW_YORK, UTC = "Europe/Berlin", "America/New_York", "UTC"
HOUR = dt.timedelta(hours=1)
TENANT = UUID(int=7)
WEEK = 7 * 24 * 60
NIGHTLY = Policy(
    cron="0 2 * * *",
    timezone=UTC,
    jitter_minutes=120,
    rpo_minutes=1800,
    drill_days=30,
    keep_last=3,
    keep_daily=7,
    keep_weekly=5,
    keep_monthly=12,
    keep_yearly=0,
)
LINES = (
    "0 2 * * *",
    "30 2 * * *",
    "59 1 * * *",
    "0 */6 * * *",
    "0 */4 * * *",
    "*/15 * * * *",
    "0 * * * *",
    "0 0-23 * * *",
    "0 */2 * * *",
    "15,45 1-3 * * *",
    "*/20 2 * * 0",
    "0 2,3 * * *",
    "0 12 * * 1-5",
    "30 4 1,15 * *",
)
ZONES = (UTC, BERLIN, NEW_YORK, "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu")


def policy(**facts: object) -> Policy:
    return msgspec.structs.replace(NIGHTLY, **facts)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def slots(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The next slots, on the wall clock of the zone."""
    wanted = policy(cron=cron, timezone=zone)
    found = itertools.islice(slots_after(wanted, at(start)), count)
    return [slot.astimezone(ZoneInfo(zone)).isoformat() for slot in found]


def test_a_slot_is_a_time_on_the_wall_in_winter_and_in_summer() -> None:
    assert slots("0 2 * * *", BERLIN, "2026-01-10T12:00:00Z", 1) == ["2026-01-11T02:00:00+01:00"]
    assert slots("0 2 * * *", BERLIN, "2026-07-10T12:00:00Z", 1) == ["2026-07-11T02:00:00+02:00"]


@pytest.mark.parametrize(
    ("zone", "cron", "start", "wanted"),
    [
        # In spring the clock goes from 02:00 to 03:00.
        (
            *(BERLIN, "30 2 * * *", "2026-03-28T00:00:00+01:00"),
            [
                "2026-03-28T02:30:00+01:00",
                "2026-03-29T03:00:00+02:00",
                "2026-03-30T02:30:00+02:00",
            ],
        ),
        (
            *(NEW_YORK, "30 2 * * *", "2026-03-07T00:00:00-05:00"),
            [
                "2026-03-07T02:30:00-05:00",
                "2026-03-08T03:00:00-04:00",
                "2026-03-09T02:30:00-04:00",
            ],
        ),
        # In autumn from 03:00 (New York: 02:00) to an hour before, so that an hour comes twice.
        (
            *(BERLIN, "30 2 * * *", "2026-10-24T00:00:00+02:00"),
            [
                "2026-10-24T02:30:00+02:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-26T02:30:00+01:00",
            ],
        ),
        (
            *(NEW_YORK, "30 1 * * *", "2026-10-31T00:00:00-04:00"),
            [
                "2026-10-31T01:30:00-04:00",
                "2026-11-01T01:30:00-04:00",
                "2026-11-02T01:30:00-05:00",
            ],
        ),
        # Asked within the second showing of the hour, the slot of its first showing is over.
        (BERLIN, "30 2 * * *", "2026-10-25T02:15:00+01:00", ["2026-10-26T02:30:00+01:00"]),
        (NEW_YORK, "30 1 * * *", "2026-11-01T01:15:00-05:00", ["2026-11-02T01:30:00-05:00"]),
        # Every hour means every hour, also the one that comes twice.
        (
            *(BERLIN, "0 * * * *", "2026-10-25T01:30:00+02:00"),
            [
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T03:00:00+01:00",
            ],
        ),
        (
            *(NEW_YORK, "0 * * * *", "2026-03-08T01:30:00-05:00"),
            ["2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00"],
        ),
        # Where midnight is skipped, and where the clock moves by half an hour.
        (
            *("America/Santiago", "0 0 * * *", "2026-09-05T01:00:00-04:00"),
            ["2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"],
        ),
        (
            *("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00"),
            ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
        ),
        # A day that comes every four years.
        (
            *(UTC, "0 3 29 2 *", "2026-01-01T00:00:00Z"),
            ["2028-02-29T03:00:00+00:00", "2032-02-29T03:00:00+00:00"],
        ),
        (UTC, "0 3 L 2 *", "2028-01-01T00:00:00Z", ["2028-02-29T03:00:00+00:00"]),
        (UTC, "0 3 L 2 *", "2027-01-01T00:00:00Z", ["2027-02-28T03:00:00+00:00"]),
    ],
)
def test_clocks_that_change(zone: str, cron: str, start: str, wanted: list[str]) -> None:
    assert slots(cron, zone, start, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("zone", "cron", "now", "wanted"),
    [
        (BERLIN, "30 2 * * *", "2026-03-29T03:10:00+02:00", "2026-03-29T03:00:00+02:00"),
        (BERLIN, "30 2 * * *", "2026-10-25T02:15:00+01:00", "2026-10-25T02:30:00+02:00"),
        (BERLIN, "30 2 * * *", "2026-10-25T02:45:00+01:00", "2026-10-25T02:30:00+02:00"),
        (NEW_YORK, "30 1 * * *", "2026-11-01T01:45:00-05:00", "2026-11-01T01:30:00-04:00"),
        (NEW_YORK, "30 2 * * *", "2026-03-08T03:00:00-04:00", "2026-03-08T03:00:00-04:00"),
        (UTC, "0 2 * * *", "2026-05-05T02:00:00Z", "2026-05-05T02:00:00Z"),
        (UTC, "0 3 29 2 *", "2026-05-05T02:00:00Z", "2024-02-29T03:00:00Z"),
    ],
)
def test_the_newest_slot(zone: str, cron: str, now: str, wanted: str) -> None:
    assert newest_slot(policy(cron=cron, timezone=zone), at(now)) == at(wanted)


moments = st.integers(0, 6 * 366 * 24 * 3600).map(
    lambda seconds: at("2024-01-01T00:00:00Z") + dt.timedelta(seconds=seconds)
)
# Around the nights in which clocks change, where something could go wrong.
nights = st.builds(
    lambda night, seconds: at(night) + dt.timedelta(seconds=seconds),
    st.sampled_from(
        [
            *("2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z", "2026-03-08T06:00:00Z"),
            *("2026-11-01T05:00:00Z", "2026-04-04T14:00:00Z", "2026-09-06T03:00:00Z"),
        ]
    ),
    st.integers(-6 * 3600, 6 * 3600),
)


@given(st.sampled_from(LINES), st.sampled_from(ZONES), moments | nights)
def test_newest_and_next_enclose_the_moment_and_nothing_is_between(
    cron: str, zone: str, now: dt.datetime
) -> None:
    wanted = policy(cron=cron, timezone=zone)
    newest, coming = newest_slot(wanted, now), next_slot(wanted, now)
    assert newest <= now < coming
    assert next_slot(wanted, newest) == coming
    assert newest_slot(wanted, coming) == coming


@given(st.sampled_from(LINES), st.sampled_from(ZONES), moments | nights)
def test_slots_are_the_same_from_wherever_one_looks(cron: str, zone: str, now: dt.datetime) -> None:
    wanted = policy(cron=cron, timezone=zone)
    end = now + dt.timedelta(hours=30)

    def up_to_the_end(start: dt.datetime) -> list[dt.datetime]:
        return list(itertools.takewhile(lambda slot: slot <= end, slots_after(wanted, start)))

    later = now + dt.timedelta(hours=3, minutes=17)
    assert up_to_the_end(later) == [slot for slot in up_to_the_end(now) if slot > later]


@given(st.sampled_from(LINES), st.sampled_from(ZONES), moments | nights)
def test_no_pause_is_longer_than_the_least_rpo(cron: str, zone: str, now: dt.datetime) -> None:
    wanted = policy(cron=cron, timezone=zone, jitter_minutes=0)
    found = list(itertools.islice(slots_after(wanted, now), 12))
    longest = max(later - earlier for earlier, later in itertools.pairwise(found))
    assert longest <= dt.timedelta(minutes=least_rpo_minutes(wanted))


@given(st.uuids(), st.integers(0, 1440), moments)
def test_the_spread_is_a_tenants_own_and_within_its_bounds(
    tenant: UUID, jitter: int, slot: dt.datetime
) -> None:
    wanted = policy(jitter_minutes=jitter)
    turn = turn_for(wanted, tenant, slot)
    assert turn == turn_for(wanted, tenant, slot)
    assert slot <= turn.due_at <= slot + dt.timedelta(minutes=jitter)
    if jitter:
        assert turn.due_at < slot + dt.timedelta(minutes=jitter)


def test_a_thousand_tenants_are_spread_evenly() -> None:
    start = at("2026-05-05T02:00:00Z")
    dues = [turn_for(NIGHTLY, UUID(int=n), start).due_at for n in range(1000)]
    tenths = [int((due - start) / dt.timedelta(minutes=12)) for due in dues]
    assert all(70 <= tenths.count(tenth) <= 130 for tenth in range(10))


def test_a_new_tenant_waits_for_its_first_slot() -> None:
    now = at("2026-05-05T10:00:00Z")
    turn = first_turn(NIGHTLY, TENANT, now - HOUR, now)
    assert turn.slot_at == at("2026-05-06T02:00:00Z")


def test_only_the_newest_missed_slot_counts() -> None:
    now = at("2026-05-05T10:00:00Z")
    missed = first_turn(NIGHTLY, TENANT, at("2026-05-01T02:00:00Z"), now)
    assert missed == Turn(at("2026-05-05T02:00:00Z"), catch_up(NIGHTLY, TENANT, now))
    soon = at("2026-05-05T02:00:01Z")
    assert first_turn(NIGHTLY, TENANT, at("2026-05-01T02:00:00Z"), soon) == turn_for(
        NIGHTLY, TENANT, at("2026-05-05T02:00:00Z")
    )
    old = turn_for(NIGHTLY, TENANT, at("2026-05-01T02:00:00Z"))
    assert present_turn(NIGHTLY, old, now) == Turn(at("2026-05-05T02:00:00Z"), old.due_at)


def test_a_turn_whose_slot_is_the_newest_stays_as_it_is() -> None:
    turn = turn_for(NIGHTLY, TENANT, at("2026-05-05T02:00:00Z"))
    assert present_turn(NIGHTLY, turn, turn.due_at + HOUR) == turn


@pytest.mark.parametrize(("jitter", "minutes"), [(0, 10), (5, 10), (120, 120)])
def test_catching_up_is_spread(jitter: int, minutes: int) -> None:
    now = at("2026-05-05T10:00:00Z")
    wanted = policy(jitter_minutes=jitter)
    dues = [catch_up(wanted, UUID(int=n), now) for n in range(100)]
    assert all(now <= due < now + dt.timedelta(minutes=minutes) for due in dues)
    assert max(dues) - min(dues) > dt.timedelta(minutes=minutes * 0.8)


def test_the_rpo_is_kept_up_to_its_last_second() -> None:
    now = at("2026-05-05T10:00:00Z")
    assert not is_breached(NIGHTLY, now - dt.timedelta(minutes=1800), now)
    assert is_breached(NIGHTLY, now - dt.timedelta(minutes=1800, seconds=1), now)


@pytest.mark.parametrize(
    ("cron", "least", "most"),
    [
        ("0 2 * * *", 1440, 1440),
        ("0 */6 * * *", 360, 360),
        ("0 2,14 * * 1-5", 720, 3600),
        ("0 3 * * 0", WEEK, WEEK),
        ("0 3 1 * *", 28 * 1440, 31 * 1440),
        ("*/30 9-17 * * *", 30, 930),
        ("0 0 29 2 *", 1461 * 1440, 1461 * 1440),
    ],
)
def test_how_far_apart_slots_are(cron: str, least: int, most: int) -> None:
    assert rhythm(cron) == Rhythm(least, most)


@pytest.mark.parametrize(
    ("cron", "zone", "jitter", "least"),
    [
        ("0 2 * * *", UTC, 120, 1560),
        ("0 2 * * *", BERLIN, 120, 1620),
        ("0 */6 * * *", BERLIN, 60, 480),
        ("0 */4 * * *", NEW_YORK, 30, 330),
        # An hour that comes twice has its slots twice.
        ("*/30 * * * *", BERLIN, 0, 30),
        ("0 2 * * *", "Asia/Kathmandu", 0, 1440),
        ("0 2 * * *", "Australia/Lord_Howe", 0, 1470),
    ],
)
def test_the_rpo_that_a_schedule_can_keep(cron: str, zone: str, jitter: int, least: int) -> None:
    wanted = policy(cron=cron, timezone=zone, jitter_minutes=jitter, rpo_minutes=least)
    assert least_rpo_minutes(wanted) == least
    assert check_policy(wanted) == wanted
    with pytest.raises(Invalid, match=f"use at least {least}, or a denser cron"):
        check_policy(msgspec.structs.replace(wanted, rpo_minutes=least - 1))


@pytest.mark.parametrize(
    ("facts", "field", "words"),
    [
        ({"cron": ""}, "cron", "use five fields"),
        ({"cron": "0 2 * *"}, "cron", "use five fields"),
        ({"cron": "0 0 2 * * *"}, "cron", "use five fields"),
        ({"cron": "0 25 * * *"}, "cron", "bad hour; use five fields"),
        ({"cron": "@daily"}, "cron", "use five fields"),
        ({"cron": "0 0 31 2 *"}, "cron", "bad day-of-month"),
        ({"cron": "0 0 * 2 MON#5"}, "cron", "no such day"),
        ({"cron": "0 2 * * *" + " " * 100}, None, None),
        ({"cron": ",".join(["1"] * 60) + " 2 * * *"}, "cron", "use five fields"),
        ({"cron": "*/10 * * * *"}, "cron", "10 min apart; leave at least 15 min"),
        ({"cron": "0,50 2 * * *", "jitter_minutes": 50}, "jitter_minutes", "50 min apart"),
        ({"cron": "0 2 * * 0"}, "rpo_minutes", "up to 10200 min pass"),
        ({"cron": "0 2 * * 0", "rpo_minutes": 10_200}, None, None),
        ({"timezone": "Berlin"}, "timezone", "there is no time zone 'Berlin'"),
        ({"timezone": "europe/berlin"}, "timezone", "Europe/Berlin"),
        ({"timezone": "../etc/passwd"}, "timezone", "there is no time zone"),
        ({"timezone": ""}, "timezone", "there is no time zone"),
        ({"timezone": "localtime"}, "timezone", "there is no time zone"),
        ({"jitter_minutes": -1}, "jitter_minutes", "use 0 to 1440"),
        ({"rpo_minutes": 0}, "rpo_minutes", "use 1 to 576000"),
        ({"drill_days": 0}, "drill_days", "use 1 to 366"),
        ({"keep_last": 0}, "keep_last", "use 1 to 1000"),
        ({"keep_daily": 1001}, "keep_daily", "use 0 to 1000"),
    ],
)
def test_what_cannot_be_meant_names_the_field_and_the_remedy(
    facts: dict[str, object], field: str | None, words: str | None
) -> None:
    wanted = policy(**facts)
    if field is None:
        assert check_policy(wanted).cron == " ".join(wanted.cron.split())
        return
    with pytest.raises(Invalid) as refused:
        check_policy(wanted)
    assert [error["field"] for error in refused.value.errors] == [field]
    assert words is not None
    assert words in refused.value.errors[0]["message"]
    assert refused.value.message == f"{field}: {refused.value.errors[0]['message']}"


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        check_policy(policy(cron="x", timezone="x", keep_last=0))
    assert {error["field"] for error in refused.value.errors} == {"cron", "timezone", "keep_last"}


@given(st.text(max_size=40) | st.from_regex(r"[0-9*,/L#\- A-Z]{0,30}", fullmatch=True))
def test_whatever_is_written_for_a_cron_line_is_taken_or_refused(cron: str) -> None:
    now = at("2026-05-05T10:00:00Z")
    refused: list[dict[str, str]] = []
    accepted = NIGHTLY
    try:
        accepted = check_policy(policy(cron=cron, rpo_minutes=400 * 1440, jitter_minutes=0))
    except Invalid as error:
        refused = error.errors
    assert {one["field"] for one in refused} <= {"cron", "rpo_minutes"}
    assert next_slot(accepted, now) > now


@pytest.mark.parametrize(
    ("cron", "minutes"), [("0 2 * * *", 120), ("0 */2 * * *", 60), ("*/15 * * * *", 7), ("x", 120)]
)
def test_a_jitter_that_nobody_chose_fits_between_two_slots(cron: str, minutes: int) -> None:
    assert fitting_jitter(policy(cron=cron)).jitter_minutes == minutes


def test_the_policies_of_the_tiers_are_good_ones_in_any_zone() -> None:
    tiers = (("0 2 * * *", 120, 1800), ("0 */6 * * *", 60, 480), ("0 */4 * * *", 30, 330))
    for cron, jitter, rpo in tiers:
        for zone in (UTC, BERLIN, NEW_YORK):
            check_policy(policy(cron=cron, timezone=zone, jitter_minutes=jitter, rpo_minutes=rpo))
