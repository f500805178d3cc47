"""What must be true of the catalog's backups and the object store together: a pure comparison.

An object that nobody knows is only garbage once it is a day old: before that an operation may be
about to tell of it.
"""

import datetime as dt
from collections.abc import Iterator
from uuid import UUID

import msgspec

from control_plane.domain.backups import BACKUPS_PREFIX, EXPORTS_PREFIX, MANIFEST
from control_plane.domain.invariants import Finding
from control_plane.domain.names import show

GARBAGE_AFTER = dt.timedelta(hours=24)


class ExpectedBackup(msgspec.Struct, frozen=True):
    """A backup that the catalog says is complete, and what must be in the store for it."""

    id: UUID
    slug: str
    object_key: str
    manifest_key: str
    stored_bytes: int


class DrillState(msgspec.Struct, frozen=True):
    """A tenant whose newest proven restore is older than its policy allows; ``None``: none."""

    slug: str
    drill_days: int
    verified_at: dt.datetime | None


class MissingKey(msgspec.Struct, frozen=True, order=True):
    """A version of a tenant's key that the catalog says is usable and the keystore lacks."""

    slug: str
    version: int


class FoundObject(msgspec.Struct, frozen=True):
    """An object in the store, or an upload that nobody finished (``pending``)."""

    key: str
    size: int
    at: dt.datetime
    pending: bool = False


class StoredWorld(msgspec.Struct, frozen=True):
    """The store and the catalog's side of it; ``now`` is the catalog's.

    ``wanted`` are folders and keys that the catalog knows something to be in; ``problem`` says why
    the store could not be looked at.
    """

    now: dt.datetime
    backups: list[ExpectedBackup] = []
    undrilled: list[DrillState] = []
    wanted: frozenset[str] = frozenset()
    objects: list[FoundObject] = []
    missing_keys: list[MissingKey] = []
    problem: str | None = None


def stored_findings(world: StoredWorld) -> list[Finding]:
    """Every difference between the store and the catalog, and every backup that is not proven."""
    found = [*_undrilled(world)]
    if world.problem is not None:
        remedy = "mend the store or its settings; tenantry admin test-store says more"
        found.append(Finding("I-5", "object store", world.problem, remedy))
    else:
        found += [*_missing(world), *_garbage(world), *_lost_keys(world)]
    return sorted(found, key=lambda f: (f.invariant, f.subject, f.message))


def _missing(world: StoredWorld) -> Iterator[Finding]:
    sizes = {one.key: one.size for one in world.objects if not one.pending}
    for backup in world.backups:
        shown = show("bk", backup.id)
        remedy = f"tenantry backups verify {shown}; tenantry backup {backup.slug}"
        size = sizes.get(backup.object_key)
        if size is None:
            yield Finding("I-5", backup.slug, f"the object of {shown} is not in the store", remedy)
        elif size != backup.stored_bytes:
            message = f"the object of {shown} has {size} bytes, not {backup.stored_bytes}"
            yield Finding("I-5", backup.slug, message, remedy)
        if backup.manifest_key not in sizes:
            message = f"the manifest of {shown} is not in the store"
            yield Finding("I-5", backup.slug, message, remedy)


def _lost_keys(world: StoredWorld) -> Iterator[Finding]:
    for lost in world.missing_keys:
        message = f"version {lost.version} of its key is not in the keystore"
        remedy = (
            "put the keystore's object back from a copy; without it nothing it sealed opens; if "
            "the tenant was deleted after the backup that this catalog comes from: tenantry admin "
            f"catalog forget-tenant {lost.slug}"
        )
        yield Finding("I-5", lost.slug, message, remedy)


def _garbage(world: StoredWorld) -> Iterator[Finding]:
    whole = {_folder(one.key) for one in world.objects if one.key == _folder(one.key) + MANIFEST}
    for one in world.objects:
        if world.now - one.at < GARBAGE_AFTER or _is_wanted(one, world.wanted):
            continue
        if _folder(one.key) in whole:
            if one.key.endswith(f"/{MANIFEST}"):
                message = f"the store has a backup in {_folder(one.key)} that the catalog lacks"
                remedy = "a catalog was lost or put back? tenantry admin stored list reads it"
                yield Finding("I-5", "object store", message, remedy)
            continue
        what = "an unfinished upload of" if one.pending else "object"
        message = f"{what} {one.key} belongs to no backup or export"
        remedy = "nothing to do: it is deleted within the hour; if not, read the workers' log"
        yield Finding("I-5", "object store", message, remedy)


def _folder(key: str) -> str:
    return f"{key.rpartition('/')[0]}/"


def _is_wanted(one: FoundObject, wanted: frozenset[str]) -> bool:
    """Whether the catalog knows the object, or the folder it is in."""
    if not one.key.startswith((BACKUPS_PREFIX, EXPORTS_PREFIX)):
        return True
    return one.key in wanted or _folder(one.key) in wanted


def _undrilled(world: StoredWorld) -> Iterator[Finding]:
    for tenant in world.undrilled:
        when = f"last proven {tenant.verified_at:%Y-%m-%d}" if tenant.verified_at else "not proven"
        message = f"no backup was restored within {tenant.drill_days} days ({when})"
        remedy = f"tenantry backups list {tenant.slug}; tenantry backups verify BACKUP"
        yield Finding("I-14", tenant.slug, message, remedy)
