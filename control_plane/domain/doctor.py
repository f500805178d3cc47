"""What is wrong with a deployment, and how to mend it: symptoms in, one diagnosis for each part.

Pure. Who gathers the symptoms says nothing about what is good or bad.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from control_plane.domain.catalog_backups import is_late
from control_plane.domain.operations import Queue
from control_plane.domain.preflight import NEWEST_MAJOR, OLDEST_MAJOR, SECURE_MINORS
from control_plane.domain.providers import ProviderKind

Level = Literal["ok", "advice", "problem"]

# Beat asks for something every 5 s; half a minute is neither a restart nor a busy minute.
_SILENT_SECONDS = 30.0
_MOST_CLOCK_SECONDS = 30.0
_LEAST_FREE_BYTES = 1 << 30
_SECURE_POOLER = (1, 26, 1)
_OTHERS_READ, _GROUP_WRITES = 0o007, 0o020


class Diagnosis(msgspec.Struct, frozen=True):
    """One part of the deployment; ``remedy`` is there unless ``level`` is ``ok``."""

    part: str
    level: Level
    found: str
    remedy: str | None = None


class CatalogSigns(msgspec.Struct, frozen=True):
    """``revision`` is the schema the catalog has, ``head`` the newest one this code knows.

    ``known``: this code has a migration to ``revision``. ``clock_ahead`` is the catalog's clock
    minus this machine's, in seconds. ``accepted``: it is no restored copy.
    """

    version_num: int
    revision: str | None
    head: str
    known: bool
    clock_ahead: float
    accepted: bool = True


class QueueSigns(msgspec.Struct, frozen=True):
    """``unheard`` messages wait in the broker; ``held`` operations are being worked on now.

    ``waiting_seconds`` is how long the first operation has waited for a worker.
    """

    queue: Queue
    unheard: int | None
    held: int
    waiting_seconds: float


class ServerSigns(msgspec.Struct, frozen=True):
    """A server as the catalog has it, and what this machine lacks to back it up."""

    name: str
    version_num: int
    reachable: bool
    problem: str | None
    missing_programs: str | None = None


class PoolerSigns(msgspec.Struct, frozen=True):
    """What a pooler's agent says; ``behind`` counts the changes it does not serve yet."""

    name: str
    alive: bool
    behind: int
    version: str | None
    problem: str | None


class KeySigns(msgspec.Struct, frozen=True):
    """The file with the root keys, and whether its active key is in escrow, and proven to be."""

    path: Path
    problem: str | None = None
    escrowed: bool = False
    drilled: bool = False


class DirectorySigns(msgspec.Struct, frozen=True):
    """A directory that is written to; ``problem`` when it cannot be."""

    variable: str
    path: Path
    problem: str | None
    free_bytes: int


class ProviderSigns(msgspec.Struct, frozen=True):
    """What a provider of servers answers: ``problem`` when it does not, or not us.

    ``missing`` is what we may not do there and have to; ``looks_only``: we may just look at what
    there is. ``unverified``: its servers could not be told from others.
    """

    kind: ProviderKind
    seen: str = ""
    problem: str | None = None
    missing: tuple[str, ...] = ()
    looks_only: bool = False
    unverified: bool = False


class SecretSigns(msgspec.Struct, frozen=True):
    """A file with a secret; no ``mode`` when it cannot be read."""

    variable: str
    path: Path
    mode: int | None


def catalog(signs: CatalogSigns) -> Iterator[Diagnosis]:
    """Whether the catalog is one that this code can work on."""
    major = signs.version_num // 10_000
    if not OLDEST_MAJOR <= major <= NEWEST_MAJOR:
        wanted = f"Postgres {OLDEST_MAJOR} to {NEWEST_MAJOR}"
        remedy = f"move the catalog to a server of {wanted}"
        yield Diagnosis("catalog", "problem", f"runs on Postgres {major}", remedy)
    migrate = "run: python -m control_plane.catalog.migrate"
    if signs.revision is None:
        yield Diagnosis("catalog", "problem", "has no schema yet", migrate)
    elif signs.revision == signs.head:
        yield Diagnosis("catalog", "ok", f"answers, at migration {signs.head}")
    elif signs.known:
        found = f"is at migration {signs.revision}, this code needs {signs.head}"
        yield Diagnosis("catalog", "problem", found, migrate)
    else:
        found = f"is at migration {signs.revision}, which is newer than this code ({signs.head})"
        remedy = "finish the upgrade: start this process from the new release"
        yield Diagnosis("catalog", "advice", found, remedy)
    if not signs.accepted:
        found = "is a restored copy, or a primary that was replaced: nobody works from it"
        remedy = "look at it (tenantry check), then: tenantry admin catalog accept"
        yield Diagnosis("catalog", "problem", found, remedy)
    yield _clock(signs.clock_ahead)


def catalog_backup(life_seconds: float, interval_seconds: float, *, any_made: bool) -> Diagnosis:
    """How old the newest backup of the catalog is, against how often there should be one."""
    part = "catalog backup"
    what = "the newest was made" if any_made else "there is none, and the catalog was set up"
    found = f"{what} {life_seconds / 60:.0f} min ago"
    if is_late(life_seconds, dt.timedelta(seconds=interval_seconds)):
        remedy = "run, and it says what is in the way: tenantry admin catalog backup"
        return Diagnosis(part, "problem", found, remedy)
    if not any_made:
        remedy = "wait a minute, or: tenantry admin catalog backup"
        return Diagnosis(part, "advice", found, remedy)
    return Diagnosis(part, "ok", found)


def _clock(ahead: float) -> Diagnosis:
    # Rounded first: -0.0 is no difference.
    found = f"the catalog's is {round(ahead, 1) + 0.0:+.1f} s from this machine's"
    if abs(ahead) > _MOST_CLOCK_SECONDS:
        remedy = "run a time service (NTP) on this machine and on the catalog's"
        return Diagnosis("clock", "problem", found, remedy)
    return Diagnosis("clock", "ok", found)


def beat_and_workers(
    silent_seconds: float | None, queues: Iterable[QueueSigns]
) -> Iterator[Diagnosis]:
    """Whether somebody asks for the periodic work, and whether each queue has a worker.

    ``silent_seconds`` is how long no periodic work left a trace in the catalog; ``None`` when
    there is none that could.
    """
    signs = {sign.queue: sign for sign in queues}
    if silent_seconds is None:
        remedy = "enrol a server: beat has it watched every few seconds"
        yield Diagnosis("beat", "advice", "there is no periodic work to know it by", remedy)
    elif silent_seconds <= _SILENT_SECONDS:
        yield Diagnosis("beat", "ok", f"periodic work was done {silent_seconds:.0f} s ago")
    else:
        yield _silent(silent_seconds, signs["control"])
    for sign in signs.values():
        yield _queue(sign)


def _silent(seconds: float, control: QueueSigns) -> Diagnosis:
    found = f"no periodic work was done for {seconds:.0f} s"
    if control.unheard:
        found += f", and {control.unheard} messages wait in the queue control"
        remedy = "start a worker: tenantry-run worker control"
        return Diagnosis("worker control", "problem", found, remedy)
    remedy = "start beat: tenantry-run beat; its log says why it stopped"
    return Diagnosis("beat", "problem", found, remedy)


def _queue(sign: QueueSigns) -> Diagnosis:
    part = f"queue {sign.queue}"
    if sign.unheard is None:
        remedy = "start Redis, or correct TENANTRY_REDIS_URL and its password file"
        return Diagnosis(part, "problem", "the broker does not answer", remedy)
    if sign.waiting_seconds > _SILENT_SECONDS and not sign.held:
        found = f"an operation waits for {sign.waiting_seconds:.0f} s, and none is worked on"
        remedy = f"start a worker: tenantry-run worker {sign.queue}"
        return Diagnosis(part, "problem", found, remedy)
    if sign.waiting_seconds > _SILENT_SECONDS:
        found = f"an operation waits for {sign.waiting_seconds:.0f} s behind {sign.held} others"
        remedy = f"start more workers with -Q {sign.queue}, if that stays so"
        return Diagnosis(part, "advice", found, remedy)
    return Diagnosis(part, "ok", f"{sign.held} operations are worked on, none waits long")


def redis(*, answers: bool) -> Diagnosis:
    """The broker's address, whatever the password."""
    if answers:
        return Diagnosis("redis", "ok", "answers")
    remedy = "start Redis, or correct TENANTRY_REDIS_URL"
    return Diagnosis("redis", "problem", "nobody answers there", remedy)


def servers(signs: Iterable[ServerSigns]) -> Iterator[Diagnosis]:
    """Each server: reachable, of a supported version, with its programs on this machine."""
    found = list(signs)
    if not found:
        remedy = "enrol one: tenantry servers add NAME --host HOST --user USER --wait"
        yield Diagnosis("servers", "advice", "none is enrolled, so no tenant can be", remedy)
    for sign in found:
        yield _server(sign)
        if sign.missing_programs is not None:
            yield Diagnosis(
                f"programs for {sign.name}",
                "problem",
                "backups and restores of this server cannot run here",
                sign.missing_programs,
            )
        else:
            yield Diagnosis(f"programs for {sign.name}", "ok", "all are on this machine")


def _server(sign: ServerSigns) -> Diagnosis:
    part, (major, minor) = f"server {sign.name}", divmod(sign.version_num, 10_000)
    if not sign.reachable:
        remedy = f"start it, or mend the way to it; then: tenantry servers show {sign.name}"
        return Diagnosis(part, "problem", sign.problem or "does not answer", remedy)
    if not OLDEST_MAJOR <= major <= NEWEST_MAJOR:
        remedy = f"move its tenants to a server of Postgres {OLDEST_MAJOR} to {NEWEST_MAJOR}"
        return Diagnosis(part, "problem", f"runs Postgres {major}.{minor}", remedy)
    if minor < SECURE_MINORS[major]:
        remedy = f"install {major}.{SECURE_MINORS[major]} or newer; older ones have CVE-2026-18408"
        return Diagnosis(part, "advice", f"runs Postgres {major}.{minor}", remedy)
    return Diagnosis(part, "ok", f"answers, Postgres {major}.{minor}")


def poolers(signs: Iterable[PoolerSigns], tenants: int) -> Iterator[Diagnosis]:
    """Each pooler: alive, and serving what the catalog wants."""
    found = list(signs)
    if not found and tenants:
        remedy = "start PgBouncer and its agent: python -m control_plane.router.agent"
        yield Diagnosis("poolers", "problem", f"none serves the {tenants} tenants", remedy)
    for sign in found:
        yield _pooler(sign)


def _pooler(sign: PoolerSigns) -> Diagnosis:
    part = f"pooler {sign.name}"
    if not sign.alive:
        found = sign.problem or "its agent is silent"
        remedy = f"start PgBouncer and its agent; if gone: tenantry poolers remove {sign.name}"
        return Diagnosis(part, "problem", found, remedy)
    if sign.problem or sign.behind > 0:
        found = sign.problem or f"does not serve the last {sign.behind} changes"
        return Diagnosis(part, "problem", found, "read the log of its agent, which says why")
    if _version(sign.version) < _SECURE_POOLER:
        wanted = ".".join(map(str, _SECURE_POOLER))
        remedy = f"install PgBouncer {wanted} or newer; older ones have CVE-2026-107350"
        return Diagnosis(part, "advice", f"serves, PgBouncer {sign.version}", remedy)
    return Diagnosis(part, "ok", f"serves all that is wanted, PgBouncer {sign.version}")


def _version(text: str | None) -> tuple[int, ...]:
    words = (text or "").split()
    return tuple(int(part) for part in words[-1].split(".") if part.isdigit()) if words else ()


def keys(signs: KeySigns) -> Iterator[Diagnosis]:
    """The root keys: usable, and not lost with this machine."""
    if signs.problem is not None:
        remedy = "put the file back, from escrow if need be: tenantry admin keys --help"
        yield Diagnosis("root keys", "problem", signs.problem, remedy)
    elif not signs.escrowed:
        remedy = "put it into escrow: tenantry admin keys escrow --to DIRECTORY"
        found = "the active root key is in no escrow: with this file all data is lost"
        yield Diagnosis("root keys", "advice", found, remedy)
    elif not signs.drilled:
        remedy = "try the shares: tenantry admin keys restore-drill"
        found = "in escrow, and nobody has rebuilt the key from there yet"
        yield Diagnosis("root keys", "advice", found, remedy)
    else:
        yield Diagnosis("root keys", "ok", "usable, in escrow, and rebuilt from there")


def directories(signs: Iterable[DirectorySigns]) -> Iterator[Diagnosis]:
    """Each directory that is written to: there, ours, with room."""
    for sign in signs:
        part, free = f"directory {sign.path}", f"{sign.free_bytes >> 20} MiB are free"
        if sign.problem is not None:
            remedy = f"make it, writable for this account alone, or correct {sign.variable}"
            yield Diagnosis(part, "problem", sign.problem, remedy)
        elif sign.free_bytes < _LEAST_FREE_BYTES:
            remedy = f"make room there, or name a larger disk by {sign.variable}"
            yield Diagnosis(part, "problem", free, remedy)
        else:
            yield Diagnosis(part, "ok", free)


def providers(signs: Iterable[ProviderSigns]) -> Iterator[Diagnosis]:
    """Each provider of servers that is set up: answers, and lets us do what we have to."""
    for sign in signs:
        part = f"provider {sign.kind}"
        if sign.problem is not None:
            remedy = "correct its settings and what it lets us do: docs/providers.md"
            yield Diagnosis(part, "problem", sign.problem, remedy)
        elif sign.unverified:
            found = f"{sign.seen}; nobody could tell its servers from others"
            remedy = "name the authorities of their certificates: TENANTRY_RDS_CA_PATH"
            yield Diagnosis(part, "problem", found, remedy)
        elif sign.looks_only:
            found = f"{sign.seen}; from here they may only be looked at, as befits an API"
            remedy = "workers need more; ask where one runs: tenantry admin doctor"
            yield Diagnosis(part, "advice", found, remedy)
        elif sign.missing:
            found = f"{sign.seen}; the service account may not {', '.join(sign.missing)}"
            remedy = "give it the permissions in docs/providers.md"
            yield Diagnosis(part, "problem", found, remedy)
        else:
            yield Diagnosis(part, "ok", sign.seen)


def secret_files(signs: Iterable[SecretSigns]) -> Iterator[Diagnosis]:
    """Each file with a secret: readable for us, and not for everybody."""
    for sign in signs:
        part = f"secret {sign.variable}"
        if sign.mode is None:
            remedy = f"make the file, or correct {sign.variable}"
            yield Diagnosis(part, "problem", f"cannot read {sign.path}", remedy)
        elif sign.mode & (_OTHERS_READ | _GROUP_WRITES):
            found = f"{sign.path} has mode {sign.mode:04o}: others may read or replace it"
            yield Diagnosis(part, "problem", found, f"run: chmod 600 {sign.path}")
        else:
            yield Diagnosis(part, "ok", f"mode {sign.mode:04o}")
