"""Backups of the catalog itself: what is known of one, where it is, how long it stays."""

import datetime as dt
from collections.abc import Iterable, Iterator
from uuid import UUID

import msgspec

from control_plane.domain.backups import MANIFEST, Content, Extension, Locale
from control_plane.domain.invariants import Finding

CATALOG_PREFIX = "catalog/"
# In the place of a tenant's id: the catalog is no tenant's.
CATALOG_ID = UUID(int=0)
FORMAT = 1
# Every backup is kept for so long; of older ones the last of each day.
_EVERY_ONE = dt.timedelta(days=2)
# A backup is late when so many of them are missing.
_MISSED = 3
_PREFIX_PARTS = 3


class CatalogManifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a backup of the catalog; stored sealed by the root key.

    ``key`` is what the object is encrypted with, ``migration`` the revision of the catalog's
    schema, ``epochs`` those of the root key that secrets in it are sealed under; a backup of an
    earlier release does not say.
    """

    format: int = FORMAT
    backup_id: UUID
    key: bytes
    object_key: str
    stored_bytes: int
    object_sha256: bytes
    plain_bytes: int
    migration: str
    epochs: list[int] | None = None
    tenants: int
    server_version: int
    dump_program: str
    database_bytes: int
    locale: Locale
    extensions: list[Extension]
    snapshot_at: dt.datetime
    content: Content

    @property
    def tenant_id(self) -> UUID:
        return CATALOG_ID

    @property
    def key_version(self) -> int:
        return 1

    def needs_epoch(self, epoch: int) -> bool:
        """Whether secrets in it are lost with this epoch; one that does not say may need any."""
        return self.epochs is None or epoch in self.epochs


class StoredCatalog(msgspec.Struct, frozen=True, order=True):
    """A backup of the catalog as a listing of the store shows it: when it was written, its id."""

    at: dt.datetime
    id: UUID


def folder(backup_id: UUID) -> str:
    """What the keys of both objects of a backup begin with."""
    return f"{CATALOG_PREFIX}{backup_id.hex}/"


def data_key(backup_id: UUID) -> str:
    return f"{folder(backup_id)}data"


def manifest_key(backup_id: UUID) -> str:
    """Where the manifest goes, which makes a backup of the data."""
    return f"{folder(backup_id)}{MANIFEST}"


def parse_key(key: str) -> UUID | None:
    """Which backup an object is of; ``None`` for what we did not write."""
    parts = key.split("/")
    if len(parts) != _PREFIX_PARTS or f"{parts[0]}/" != CATALOG_PREFIX:
        return None
    try:
        return UUID(hex=parts[1])
    except ValueError:
        return None


def expired(found: Iterable[StoredCatalog], now: dt.datetime, keep: dt.timedelta) -> list[UUID]:
    """The backups that nobody needs any more; never the newest one."""
    newest_first = sorted(found, reverse=True)
    kept = {one.id for one in newest_first[:1]}
    days: set[dt.date] = set()
    for one in newest_first:
        age, day = now - one.at, one.at.astimezone(dt.UTC).date()
        if age <= _EVERY_ONE or (age <= keep and day not in days):
            kept.add(one.id)
        days.add(day)
    return [one.id for one in newest_first if one.id not in kept]


def is_late(age_seconds: float, interval: dt.timedelta) -> bool:
    """Whether a backup should have been made long ago."""
    return age_seconds > _MISSED * interval.total_seconds()


def late_finding(age_seconds: float, interval: dt.timedelta) -> Iterator[Finding]:
    """What ``check`` says of a catalog that is not backed up, by the age of the newest backup."""
    if is_late(age_seconds, interval):
        message = f"was backed up {age_seconds / 3600:.1f} h ago, and should be every "
        message += f"{interval.total_seconds() / 60:.0f} min"
        remedy = "tenantry admin catalog backup says what is in the way"
        yield Finding("I-14", "catalog", message, remedy)
