"""Which backups of a tenant are kept: grandfather, father, son, and what no rule may take."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.domain.backups import BackupCause
from control_plane.domain.schedules import Policy

Period = tuple[int, ...]


class Candidate(msgspec.Struct, frozen=True):
    """A backup whose objects are in the store, as far as keeping it is concerned."""

    id: UUID
    state: Literal["complete", "corrupt"]
    cause: BackupCause
    snapshot_at: dt.datetime
    verified: bool
    pinned: bool


def keep(
    candidates: Iterable[Candidate], policy: Policy, now: dt.datetime, *, held: bool
) -> frozenset[UUID]:
    """The ids of those that stay; the others may be destroyed.

    Under legal hold (``held``) all stay. Otherwise each rule of the policy keeps what it says,
    whatever the others do, and whatever the policy says there stay: pinned ones, the newest
    complete one, the youngest verified one, one made by hand for as many days as days are kept,
    and a corrupt one until a verified one is younger.
    """
    every = list(candidates)
    if held:
        return frozenset(one.id for one in every)
    complete = sorted(
        (one for one in every if one.state == "complete"),
        key=lambda one: (one.snapshot_at, one.id),
        reverse=True,
    )
    verified = [one for one in complete if one.verified]
    corrupt = [one for one in every if one.state == "corrupt"]
    by_hand = [one for one in complete if one.cause == "manual"]
    kept = [
        *(one for one in every if one.pinned),
        *complete[: max(1, policy.keep_last)],
        *verified[:1],
        *(one for one in by_hand if now - one.snapshot_at < dt.timedelta(policy.keep_daily)),
        *(one for one in corrupt if not verified or one.snapshot_at > verified[0].snapshot_at),
        *_by_periods(complete, policy),
    ]
    return frozenset(one.id for one in kept)


def _by_periods(complete: Sequence[Candidate], policy: Policy) -> list[Candidate]:
    zone = policy.zone
    rules: tuple[tuple[int, Callable[[dt.date], Period]], ...] = (
        (policy.keep_daily, lambda day: (day.toordinal(),)),
        (policy.keep_weekly, lambda day: day.isocalendar()[:2]),
        (policy.keep_monthly, lambda day: (day.year, day.month)),
        (policy.keep_yearly, lambda day: (day.year,)),
    )
    days = [(one, one.snapshot_at.astimezone(zone).date()) for one in complete]
    kept: list[Candidate] = []
    for most, period_of in rules:
        best: dict[Period, Candidate] = {}
        for one, day in days:
            period = period_of(day)
            best[period] = _better(best.get(period), one)
        kept += list(best.values())[:most]
    return kept


def _better(present: Candidate | None, older: Candidate) -> Candidate:
    """Which of two stands for a period: the younger, unless only the older is verified."""
    if present is None or (older.verified and not present.verified):
        return older
    return present
