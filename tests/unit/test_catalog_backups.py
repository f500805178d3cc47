"""Backups of the catalog: which are kept, and what opens the manifest of one."""

import datetime as dt
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.catalog_manifest import open_manifest, seal_manifest
from control_plane.adapters.keyring import Keyring
from control_plane.domain import doctor
from control_plane.domain.backups import Content, Locale, TableContent
from control_plane.domain.catalog_backups import (
    CatalogManifest,
    StoredCatalog,
    data_key,
    expired,
    late_finding,
    manifest_key,
    parse_key,
)
from control_plane.domain.errors import BackupCorrupt, KeyUnavailable, TenantryError

NOW = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
KEEP = dt.timedelta(days=35)
HOUR = dt.timedelta(hours=1)
BACKUP, OTHER = UUID(int=7), UUID(int=8)
KEYRING = Keyring({1: b"1" * 32}, 1)
MANIFEST = CatalogManifest(
    backup_id=BACKUP,
    key=b"k" * 32,
    object_key=data_key(BACKUP),
    stored_bytes=100,
    object_sha256=b"h" * 32,
    plain_bytes=90,
    migration="0007",
    tenants=3,
    server_version=150_020,
    dump_program="pg_dump (PostgreSQL) 15.20",
    database_bytes=1,
    locale=Locale("UTF8", "C", "C", "c"),
    extensions=[],
    snapshot_at=NOW,
    content=Content({"public.tenants": TableContent(3, "9")}, {}, TableContent(0, "0")),
)


def stored(*ages: dt.timedelta) -> list[StoredCatalog]:
    return [StoredCatalog(NOW - age, UUID(int=place)) for place, age in enumerate(ages)]


def test_every_one_of_two_days_is_kept() -> None:
    assert expired(stored(*(HOUR * n for n in range(48))), NOW, KEEP) == []


def test_of_older_ones_the_last_of_each_day_is_kept() -> None:
    found = stored(HOUR, HOUR * 72, HOUR * 73, HOUR * 74, HOUR * 96)
    assert expired(found, NOW, KEEP) == [UUID(int=2), UUID(int=3)]


def test_what_is_older_than_copies_may_be_goes() -> None:
    assert expired(stored(HOUR, KEEP + HOUR), NOW, KEEP) == [UUID(int=1)]


@given(st.lists(st.integers(min_value=0, max_value=24 * 400), max_size=200))
def test_the_newest_one_is_never_destroyed(hours: list[int]) -> None:
    found = stored(*(HOUR * n for n in hours))
    gone = set(expired(found, NOW, KEEP))
    assert len(gone) < max(len(found), 1)
    if found:
        assert max(found).id not in gone


def test_keys_lead_back_to_their_backup() -> None:
    assert parse_key(data_key(BACKUP)) == parse_key(manifest_key(BACKUP)) == BACKUP
    assert parse_key("backups/x/manifest") is None
    assert parse_key("catalog/not-an-id/data") is None
    assert parse_key("catalog/data") is None


def test_a_manifest_comes_back_as_it_was_sealed() -> None:
    sealed = seal_manifest(MANIFEST, KEYRING)
    assert open_manifest(sealed, BACKUP, KEYRING) == MANIFEST
    assert b"tenants" not in sealed


@pytest.mark.parametrize(
    ("data", "backup", "keyring", "error"),
    [
        (seal_manifest(MANIFEST, KEYRING)[:10], BACKUP, KEYRING, BackupCorrupt),
        (b"TNBM" + seal_manifest(MANIFEST, KEYRING)[4:], BACKUP, KEYRING, BackupCorrupt),
        (seal_manifest(MANIFEST, KEYRING), OTHER, KEYRING, BackupCorrupt),
        (seal_manifest(MANIFEST, KEYRING)[:-1], BACKUP, KEYRING, KeyUnavailable),
        (seal_manifest(MANIFEST, KEYRING), BACKUP, Keyring({1: b"2" * 32}, 1), KeyUnavailable),
        (seal_manifest(MANIFEST, KEYRING), BACKUP, Keyring({2: b"1" * 32}, 2), KeyUnavailable),
    ],
)
def test_what_is_not_this_manifest_does_not_open(
    data: bytes, backup: UUID, keyring: Keyring, error: type[TenantryError]
) -> None:
    with pytest.raises(error):
        open_manifest(data, backup, keyring)


def test_a_manifest_put_in_the_place_of_another_is_found() -> None:
    """The head is nobody's proof: the seal is bound to the backup."""
    moved = bytearray(seal_manifest(MANIFEST, KEYRING))
    moved[5:21] = OTHER.bytes
    with pytest.raises(KeyUnavailable):
        open_manifest(bytes(moved), OTHER, KEYRING)


def test_a_newer_release_is_not_guessed_at() -> None:
    newer = msgspec.structs.replace(MANIFEST, format=2)
    with pytest.raises(BackupCorrupt, match="newer release"):
        open_manifest(seal_manifest(newer, KEYRING), BACKUP, KEYRING)


@pytest.mark.parametrize(
    ("age", "any_made", "level"),
    [(60.0, True, "ok"), (60.0, False, "advice"), (4 * 3600.0, True, "problem")],
)
def test_doctor_and_check_agree_on_what_is_late(age: float, any_made: bool, level: str) -> None:  # noqa: FBT001 - a column of the table
    assert doctor.catalog_backup(age, 3600.0, any_made=any_made).level == level
    assert len(list(late_finding(age, HOUR))) == (level == "problem")
