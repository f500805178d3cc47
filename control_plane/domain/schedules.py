"""When a tenant is backed up: slots of a cron line in its time zone, spread, judged by its RPO.

A slot is an instant that the cron line names. A tenant's backup for a slot is due a little later,
by a share of the jitter that is the tenant's own and never changes.
"""

import datetime as dt
import hashlib
import zoneinfo
from collections import deque
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise, takewhile
from typing import Literal
from uuid import UUID

import msgspec
from cronsim import CronSim, CronSimError

from control_plane.domain.errors import Invalid

PolicySource = Literal["tier", "tenant"]

_FIELDS = 5
_LONGEST_CRON = 100
_CRON_WORDS = 'use five fields, such as "0 2 * * *" (minute hour day month weekday)'
# Zones that are another one on every machine, or none at all.
_NO_ZONES = frozenset({"localtime", "Factory"})
_LEAST_APART = 15
_LONGEST_RPO = 400 * 24 * 60
_MOST_KEPT = 1000
# The least and the most of every number in a policy.
LIMITS = {
    "jitter_minutes": (0, 24 * 60),
    "rpo_minutes": (1, _LONGEST_RPO),
    "drill_days": (1, 366),
    "keep_last": (1, _MOST_KEPT),
    "keep_daily": (0, _MOST_KEPT),
    "keep_weekly": (0, _MOST_KEPT),
    "keep_monthly": (0, _MOST_KEPT),
    "keep_yearly": (0, _MOST_KEPT),
}
_MINUTE = dt.timedelta(minutes=1)
_LONGEST_SHIFT = dt.timedelta(hours=3)
_DAY_MINUTES = 24 * 60
_EVERY_DAY = "0 0 * * *"
# Days are looked at over two leap years, offsets over two years: what holds there, holds.
_LOOK_FROM = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - a wall clock; days have no zone
_LOOK_DAYS = 8 * 366
_OFFSET_DAYS = 2 * 366
# After planning stood still, catch-ups are spread over the jitter, or over this if that is more.
_LEAST_SPREAD_MINUTES = 10


class Policy(msgspec.Struct, frozen=True):
    """When and how long: the schedule of a tier, or of one tenant.

    ``rpo_minutes`` is the age its newest backup may have, ``drill_days`` that of its newest
    verified restore. The ``keep_…`` count days, weeks, months and years that have a backup.
    """

    cron: str
    timezone: str
    jitter_minutes: int
    rpo_minutes: int
    drill_days: int
    keep_last: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    keep_yearly: int

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.timezone)

    @property
    def rpo(self) -> dt.timedelta:
        return dt.timedelta(minutes=self.rpo_minutes)


class Turn(msgspec.Struct, frozen=True):
    """The next backup of a tenant: for which slot, and from when on."""

    slot_at: dt.datetime
    due_at: dt.datetime


class Rhythm(msgspec.Struct, frozen=True):
    """The shortest and the longest time between two slots, in minutes."""

    least: int
    most: int


def slots_after(policy: Policy, instant: dt.datetime) -> Iterator[dt.datetime]:
    """The slots after this instant, in UTC, rising.

    A time that the clock skips in spring is the instant at which it goes on. A time that it shows
    twice in autumn is the first of them, or both when the hour of the line is ``*`` or ``*/n``.
    """
    last = instant
    for slot in _slots_from(policy, _wall(instant, policy.zone) - _LONGEST_SHIFT):
        if slot > last:
            yield slot
            last = slot


def next_slot(policy: Policy, instant: dt.datetime) -> dt.datetime:
    """The first slot after this instant."""
    return next(slots_after(policy, instant))


def newest_slot(policy: Policy, instant: dt.datetime) -> dt.datetime:
    """The last slot at or before this instant."""
    back = dt.timedelta(hours=1)
    while True:
        passed = takewhile(lambda slot: slot <= instant, slots_after(policy, instant - back))
        newest = max(passed, default=None)
        if newest is not None:
            return newest
        back *= 2


def turn_for(policy: Policy, tenant_id: UUID, slot: dt.datetime) -> Turn:
    """The turn of a tenant for a slot: its own share of the jitter later."""
    return Turn(slot, slot + _share(tenant_id) * policy.jitter_minutes * _MINUTE)


def first_turn(policy: Policy, tenant_id: UUID, since: dt.datetime, now: dt.datetime) -> Turn:
    """The turn of a tenant that has none: the newest slot missed after ``since``, or the next."""
    newest = newest_slot(policy, now)
    turn = turn_for(policy, tenant_id, newest if newest > since else next_slot(policy, now))
    if turn.due_at > now:
        return turn
    return Turn(turn.slot_at, catch_up(policy, tenant_id, now))


def present_turn(policy: Policy, turn: Turn, now: dt.datetime) -> Turn:
    """A turn that is due, for the newest slot: of those missed, no other counts.

    It stays due since when it was, so that waiting long is not waiting anew.
    """
    return Turn(max(turn.slot_at, newest_slot(policy, now)), turn.due_at)


def catch_up(policy: Policy, tenant_id: UUID, now: dt.datetime) -> dt.datetime:
    """When a turn that is late through no fault of the tenant is due: not with all the others."""
    spread = max(policy.jitter_minutes, _LEAST_SPREAD_MINUTES)
    return now + _share(tenant_id) * spread * _MINUTE


def is_breached(policy: Policy, covered_until: dt.datetime, now: dt.datetime) -> bool:
    """Whether more would be lost than the RPO allows; ``covered_until`` is in the newest backup."""
    return now - covered_until > policy.rpo


@lru_cache
def rhythm(cron: str) -> Rhythm:
    """How far apart the slots of a line are, on the clock.

    Raises:
        CronSimError: it is no cron line, or hardly names a day.
    """
    minute, hour, *days = cron.split()
    times = _minutes_of_a_day(f"{minute} {hour} * * *")
    numbers = _numbers_of_days(f"0 0 {' '.join(days)}")
    between_days = [
        (later - earlier) * _DAY_MINUTES + times[0] - times[-1]
        for earlier, later in pairwise(numbers)
    ]
    within_days = [later - earlier for earlier, later in pairwise(times)]
    gaps = [*between_days, *within_days]
    return Rhythm(min(gaps), max(gaps))


def check_policy(policy: Policy) -> Policy:
    """The policy itself, its cron line with single spaces.

    Raises:
        Invalid: it cannot be meant; every field that is wrong is named with its remedy.
    """
    policy = msgspec.structs.replace(policy, cron=" ".join(policy.cron.split()))
    errors = _range_errors(policy) | _zone_errors(policy)
    found = _rhythm_or_error(policy.cron)
    if isinstance(found, str):
        errors["cron"] = found
    elif not errors:
        errors = _fit_errors(policy, found)
    if errors:
        listed = [{"field": field, "message": words} for field, words in errors.items()]
        raise Invalid("; ".join(f"{field}: {words}" for field, words in errors.items()), listed)
    return policy


def least_rpo_minutes(policy: Policy) -> int:
    """The RPO that the schedule can keep: the longest pause, the jitter, a clock put back.

    Raises:
        CronSimError: the line is no cron line.
    """
    most = rhythm(policy.cron).most
    shift = _clock_shift_minutes(policy.timezone)
    if _is_every_hour(policy.cron) and most <= shift:
        shift = 0
    return most + policy.jitter_minutes + shift


def fitting_jitter(policy: Policy) -> Policy:
    """The policy with a jitter of at most half the time between two slots."""
    found = _rhythm_or_error(policy.cron)
    if isinstance(found, str):
        return policy
    jitter = min(policy.jitter_minutes, found.least // 2)
    return msgspec.structs.replace(policy, jitter_minutes=jitter)


def _is_every_hour(cron: str) -> bool:
    return cron.split()[1].startswith("*")


def _wall(instant: dt.datetime, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def _slots_from(policy: Policy, wall: dt.datetime) -> Iterator[dt.datetime]:
    """The slots from a time on the wall on, never falling."""
    zone, both = policy.zone, _is_every_hour(policy.cron)
    again = deque[dt.datetime]()
    for shown in CronSim(policy.cron, wall):
        first, second = _instants(shown, zone)
        while again and again[0] <= first:
            yield again.popleft()
        yield first
        if both and second > first:
            again.append(second)


def _instants(wall: dt.datetime, zone: zoneinfo.ZoneInfo) -> tuple[dt.datetime, dt.datetime]:
    """When the clock shows this time for the first and for the last time, in UTC."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(dt.UTC) for fold in (0, 1))
    if first <= second:
        return first, second
    # It never does: find the minute at which the clock goes on.
    before, after = second, first
    while after - before > _MINUTE:
        middle = before + (after - before) // _MINUTE // 2 * _MINUTE
        before, after = (middle, after) if _wall(middle, zone) < wall else (before, middle)
    return after, after


def _share(tenant_id: UUID) -> float:
    """A number from 0 to below 1 that is always the same for a tenant."""
    return int.from_bytes(hashlib.sha256(tenant_id.bytes).digest()[:6]) / 2**48


def _range_errors(policy: Policy) -> dict[str, str]:
    return {
        field: f"use {least} to {most}"
        for field, (least, most) in LIMITS.items()
        if not least <= getattr(policy, field) <= most
    }


def _zone_errors(policy: Policy) -> dict[str, str]:
    if policy.timezone in _zones():
        return {}
    return {
        "timezone": f"there is no time zone {policy.timezone!r}; use a name such as Europe/Berlin"
    }


def _rhythm_or_error(cron: str) -> Rhythm | str:
    if len(cron) > _LONGEST_CRON or len(cron.split()) != _FIELDS:
        return _CRON_WORDS
    try:
        return rhythm(cron)
    except CronSimError as error:
        return f"{str(error)[:1].lower()}{str(error)[1:]}; {_CRON_WORDS}"


def _fit_errors(policy: Policy, found: Rhythm) -> dict[str, str]:
    """What each field by itself cannot tell: whether they go together."""
    if found.least < _LEAST_APART:
        return {
            "cron": f"two slots are {found.least} min apart; leave at least {_LEAST_APART} min "
            "between two backups"
        }
    if policy.jitter_minutes >= found.least:
        return {
            "jitter_minutes": f"two slots are {found.least} min apart; use less than that, so "
            "that one backup is due before the next"
        }
    least = least_rpo_minutes(policy)
    if policy.rpo_minutes < least:
        return {
            "rpo_minutes": f"with this schedule up to {least} min pass between two backups "
            f"(jitter and a change of the clock included); use at least {least}, or a denser cron"
        }
    return {}


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NO_ZONES


@cache
def _clock_shift_minutes(timezone: str) -> int:
    """By how much the clock of a zone is put back at most."""
    zone = zoneinfo.ZoneInfo(timezone)
    days = (_LOOK_FROM.replace(tzinfo=zone) + dt.timedelta(days=n) for n in range(_OFFSET_DAYS))
    offsets = {day.utcoffset() or dt.timedelta() for day in days}
    return (max(offsets) - min(offsets)) // _MINUTE


def _minutes_of_a_day(cron: str) -> list[int]:
    """The minutes of a day at which the line fires on it."""
    day_before = _LOOK_FROM - dt.timedelta(seconds=1)
    end = _LOOK_FROM + dt.timedelta(days=1)
    found = takewhile(lambda slot: slot < end, CronSim(cron, day_before))
    return [(slot - _LOOK_FROM) // _MINUTE for slot in found]


def _numbers_of_days(cron: str) -> list[int]:
    """The days on which the line fires, counted from one day on; at least two.

    Raises:
        CronSimError: there are not two of them in eight years.
    """
    if cron == _EVERY_DAY:
        return [0, 1]
    end = _LOOK_FROM + dt.timedelta(days=_LOOK_DAYS)
    found = takewhile(lambda slot: slot < end, CronSim(cron, _LOOK_FROM - dt.timedelta(seconds=1)))
    numbers = [(slot - _LOOK_FROM).days for slot in found]
    if len(numbers) < 2:  # noqa: PLR2004 - a pause has two ends
        raise CronSimError("no such day")
    return numbers
