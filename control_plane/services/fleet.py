"""The fleet at a glance: what there is, what runs, and what needs somebody, worst first."""

import datetime as dt
from collections import Counter
from typing import Literal

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import fleet, servers
from control_plane.catalog.disturbances import Disturbance
from control_plane.catalog.fleet import Failure, Group, Overdue
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.spans import span_words
from control_plane.services.noise import open_disturbances

Severity = Literal["critical", "serious", "notice"]
_RUNNING_SHOWN = 12
_FAILED_SINCE = dt.timedelta(days=7)
_SILENT_SECONDS = 60.0
_ORDER: tuple[Severity, ...] = ("critical", "serious", "notice")


class Subject(msgspec.Struct, frozen=True):
    """One of those that a concern is about: a name, where it is looked at, and its details."""

    name: str
    kind: Literal["tenant", "server", "operation", "pooler"]
    key: str
    detail: str


class Concern(msgspec.Struct, frozen=True):
    """Something that needs somebody, who may do about it what ``permission`` allows to see."""

    severity: Severity
    title: str
    remedy: str
    permission: str
    subjects: list[Subject]


class Fleet(msgspec.Struct, frozen=True):
    """Everything of the overview, as of one moment."""

    groups: list[Group]
    servers: list[Server]
    running: list[Operation]
    running_count: int
    concerns: list[Concern]

    @property
    def tenants(self) -> int:
        """How many there are."""
        return sum(group.tenants for group in self.groups)

    def by(self, what: Literal["state", "tier"]) -> dict[str, int]:
        """The tenants by state or by tier, the most first."""
        counted: Counter[str] = Counter()
        for group in self.groups:
            counted[getattr(group, what)] += group.tenants
        return dict(counted.most_common())


async def look_at_fleet(db: Connection) -> Fleet:
    """The fleet as the catalog knows it; no server is asked."""
    listed = await servers.every(db)
    operations, count = await fleet.running(db, _RUNNING_SHOWN)
    return Fleet(await fleet.groups(db), listed, operations, count, await _concerns(db, listed))


async def _concerns(db: Connection, listed: list[Server]) -> list[Concern]:
    now = clock.now()
    found = [
        _unreachable(listed),
        await _silent(db, now),
        _past_rpo(await fleet.past_rpo(db), now),
        await _damaged(db),
        _noisy(await open_disturbances(db), now),
        _failed(await fleet.failures(db, _FAILED_SINCE), now),
        _late(await fleet.late(db), now),
        _undrilled(await fleet.undrilled(db), now),
        _nearly_full(listed),
    ]
    raised = [concern for concern in found if concern is not None]
    return sorted(raised, key=lambda concern: _ORDER.index(concern.severity))


def _unreachable(listed: list[Server]) -> Concern | None:
    subjects = [
        Subject(one.name, "server", one.name, one.problem or "it does not answer")
        for one in listed
        if not one.reachable
    ]
    remedy = "Its tenants are down. Look at the machine and its network first."
    return _concern("critical", ("server", "unreachable"), remedy, "listServers", subjects)


async def _silent(db: Connection, now: dt.datetime) -> Concern | None:
    subjects = [
        Subject(
            one.name,
            "pooler",
            one.name,
            one.problem or f"silent for {_since(one.last_seen_at, now)}",
        )
        for one in await fleet.silent_poolers(db, _SILENT_SECONDS)
    ]
    remedy = "Moves and suspensions wait for it. Look at PgBouncer and at the agent beside it."
    return _concern(
        "critical", ("pooler", "not serving as it should"), remedy, "listPoolers", subjects
    )


async def _damaged(db: Connection) -> Concern | None:
    subjects = [
        Subject(one.slug, "tenant", one.slug, f"{show('bk', one.backup_id)}: {one.problem}")
        for one in await fleet.damaged(db)
    ]
    remedy = "Make a new backup now, and find out what the store did to this one."
    return _concern("critical", ("backup", "damaged"), remedy, "listBackups", subjects)


def _past_rpo(found: list[Overdue], now: dt.datetime) -> Concern | None:
    subjects = [
        _tenant(one, f"would lose {_since(one.since, now)}; {span_words(one.allowed)} is the limit")
        for one in found
    ]
    words = ("tenant", "past the recovery point objective")
    remedy = "Back them up; if that fails, the reason is on the operation's page."
    return _concern("critical", words, remedy, "getBackupStatus", subjects)


def _noisy(found: list[Disturbance], now: dt.datetime) -> Concern | None:
    subjects = [
        Subject(
            one.slug,
            "tenant",
            one.slug,
            f"on {one.server} for {_since(one.began_at, now)}; {_suffering(one)}",
        )
        for one in found
        if one.level == "noisy"
    ]
    remedy = "Its page has the evidence, and what may be done: tighten its limits, or move it."
    words = ("tenant", "using too much of a server")
    return _concern("serious", words, remedy, "getNoisy", subjects)


def _suffering(found: Disturbance) -> str:
    if not found.sufferers:
        return "no neighbour is seen to suffer"
    return f"who suffers: {', '.join(one.slug for one in found.sufferers)}"


def _undrilled(found: list[Overdue], now: dt.datetime) -> Concern | None:
    subjects = [
        _tenant(
            one,
            f"last proven {_since(one.since, now)} ago" if one.since else "never proven",
            f"every {span_words(one.allowed)} is wanted",
        )
        for one in found
    ]
    words = ("tenant", "without a recent proven restore")
    remedy = "Prove the newest backup by restoring it."
    return _concern("serious", words, remedy, "getBackupStatus", subjects)


def _tenant(found: Overdue, *words: str) -> Subject:
    return Subject(found.slug, "tenant", found.slug, "; ".join(words))


def _failed(found: list[Failure], now: dt.datetime) -> Concern | None:
    subjects = [
        _operation(one, f"{_since(one.finished_at, now)} ago: {one.error_message or 'no reason'}")
        for one in found
    ]
    remedy = "The page of each says why and what to do; a retry goes on at the step that failed."
    return _concern("serious", ("operation", "failed"), remedy, "listOperations", subjects)


def _late(found: list[Failure], now: dt.datetime) -> Concern | None:
    subjects = [
        _operation(one, f"{_since(one.finished_at, now)} past its deadline") for one in found
    ]
    remedy = "Look at the step that takes so long."
    return _concern("serious", ("operation", "late"), remedy, "listOperations", subjects)


def _nearly_full(listed: list[Server]) -> Concern | None:
    subjects = [
        Subject(one.name, "server", one.name, f"{one.placed} of {one.capacity} places taken")
        for one in listed
        if one.state == "active" and one.placed * 10 >= one.capacity * 9
    ]
    remedy = "Enrol another server before placements are refused."
    return _concern("notice", ("server", "nearly full"), remedy, "listServers", subjects)


def _concern(
    severity: Severity,
    words: tuple[str, str],
    remedy: str,
    permission: str,
    subjects: list[Subject],
) -> Concern | None:
    if not subjects:
        return None
    noun, what = words
    title = f"{len(subjects)} {noun}{'s' if len(subjects) > 1 else ''} {what}"
    return Concern(severity, title, remedy, permission, subjects)


def _operation(found: Failure, detail: str) -> Subject:
    name = f"{found.kind.replace('_', ' ')} of {found.subject}"
    return Subject(name, "operation", show("op", found.id), detail)


def _since(then: dt.datetime | None, now: dt.datetime) -> str:
    return span_words(now - then) if then is not None else "everything"
