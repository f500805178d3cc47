"""The keystore: a key opens for its tenant and version alone, and survives whatever dies."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.adapters.key_file import KEY_BYTES
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import CACHE_SECONDS, KeyName, Keystore
from control_plane.adapters.kms import LocalKms
from control_plane.adapters.object_stores.files import FileStore
from control_plane.domain.errors import KeyUnavailable
from tests.unit.dying_stores import DyingStore, Killed, LyingStore

OWN, OTHER = UUID(int=7), UUID(int=8)
ROOTS = {1: bytes(range(32)), 2: bytes(range(50, 82))}
OLD, BOTH, NEW = Keyring({1: ROOTS[1]}, 1), Keyring(ROOTS, 2), Keyring({2: ROOTS[2]}, 2)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def keystore(directory: Path, keyring: Keyring = BOTH) -> Keystore:
    return Keystore(FileStore(directory), LocalKms(keyring))


def place(directory: Path, tenant: UUID, version: int) -> Path:
    return directory / "keystore" / tenant.hex / str(version)


def keep(directory: Path, tenant: UUID, version: int, keyring: Keyring = BOTH) -> bytes:
    key = os.urandom(KEY_BYTES)
    keystore(directory, keyring).keep(tenant, version, key)
    return key


def opened(directory: Path, tenant: UUID, version: int, keyring: Keyring = BOTH) -> bytes:
    return keystore(directory, keyring).open(tenant, version)


def test_a_key_is_made_and_opens_in_another_process(tmp_path: Path) -> None:
    keystore(tmp_path).create(OWN, 1)
    key = opened(tmp_path, OWN, 1)
    assert len(key) == KEY_BYTES
    assert key not in place(tmp_path, OWN, 1).read_bytes()
    assert list(keystore(tmp_path).every()) == [KeyName(OWN.hex, 1)]


def test_a_key_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    key = keep(tmp_path, OWN, 1)
    before = place(tmp_path, OWN, 1).read_bytes()
    with pytest.raises(KeyUnavailable, match="it stays"):
        keystore(tmp_path).create(OWN, 1)
    keystore(tmp_path).keep(OWN, 1, key)
    assert place(tmp_path, OWN, 1).read_bytes() == before


def test_what_is_not_there_does_not_open(tmp_path: Path) -> None:
    keep(tmp_path, OWN, 1)
    assert keystore(tmp_path).find(OWN, 2) is None
    with pytest.raises(KeyUnavailable, match=r"version 2 .* is not in the keystore"):
        opened(tmp_path, OWN, 2)


def test_another_tenants_key_does_not_open_in_ones_place(tmp_path: Path) -> None:
    keep(tmp_path, OWN, 1)
    keep(tmp_path, OTHER, 1)
    stolen = place(tmp_path, OTHER, 1).read_bytes()
    place(tmp_path, OWN, 1).write_bytes(stolen)
    with pytest.raises(KeyUnavailable, match="another key in the place"):
        opened(tmp_path, OWN, 1)
    place(tmp_path, OWN, 1).write_bytes(stolen.replace(OTHER.bytes, OWN.bytes))
    with pytest.raises(KeyUnavailable, match="does not open in this context"):
        opened(tmp_path, OWN, 1)


def test_an_old_version_does_not_open_in_the_place_of_a_new_one(tmp_path: Path) -> None:
    keep(tmp_path, OWN, 1)
    keep(tmp_path, OWN, 2)
    old = place(tmp_path, OWN, 1).read_bytes()
    place(tmp_path, OWN, 2).write_bytes(old)
    with pytest.raises(KeyUnavailable, match="another key in the place"):
        opened(tmp_path, OWN, 2)
    forged = old[:21] + (2).to_bytes(4, "big") + old[25:]
    place(tmp_path, OWN, 2).write_bytes(forged)
    with pytest.raises(KeyUnavailable, match="does not open in this context"):
        opened(tmp_path, OWN, 2)


def test_without_its_root_key_a_key_does_not_open(tmp_path: Path) -> None:
    keep(tmp_path, OWN, 1, OLD)
    with pytest.raises(KeyUnavailable, match="no key of this keyring"):
        opened(tmp_path, OWN, 1, NEW)
    with pytest.raises(KeyUnavailable, match="does not open in this context"):
        opened(tmp_path, OWN, 1, Keyring({1: bytes(32)}, 1))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_changed_bit_goes_unnoticed(tmp_path: Path, where: int, bit: int) -> None:
    tenant = uuid4()
    keep(tmp_path, tenant, 1)
    content = bytearray(place(tmp_path, tenant, 1).read_bytes())
    content[where % len(content)] ^= 1 << bit
    place(tmp_path, tenant, 1).write_bytes(bytes(content))
    with pytest.raises(KeyUnavailable):
        opened(tmp_path, tenant, 1)


def test_a_cut_or_longer_object_does_not_open(tmp_path: Path) -> None:
    keep(tmp_path, OWN, 1)
    content = place(tmp_path, OWN, 1).read_bytes()
    for damaged in [*(content[:end] for end in range(len(content))), content + b"\0"]:
        place(tmp_path, OWN, 1).write_bytes(damaged)
        with pytest.raises(KeyUnavailable):
            opened(tmp_path, OWN, 1)


def test_strangers_in_the_store_are_no_keys(tmp_path: Path) -> None:
    keep(tmp_path, OWN, 1)
    for stranger in ("README", "x/1", f"{OTHER.hex}/one", f"{OTHER.hex}/01", f"{OTHER.hex}/1.new"):
        file = tmp_path / "keystore" / stranger
        file.parent.mkdir(exist_ok=True)
        file.write_text("hello")
    assert list(keystore(tmp_path).every()) == [KeyName(OWN.hex, 1)]
    assert keystore(tmp_path).wrapped_by() == {"local:2": 1}


def test_an_opened_key_is_remembered_for_five_minutes_and_not_longer(tmp_path: Path) -> None:
    clock = Clock()
    held = Keystore(FileStore(tmp_path), LocalKms(BOTH), now=clock)
    key = keep(tmp_path, OWN, 1)
    assert held.open(OWN, 1) == key
    place(tmp_path, OWN, 1).unlink()
    clock.seconds = CACHE_SECONDS - 1
    assert held.open(OWN, 1) == key
    clock.seconds = CACHE_SECONDS
    with pytest.raises(KeyUnavailable):
        held.open(OWN, 1)
    assert CACHE_SECONDS <= 300


def test_a_purged_key_is_read_again(tmp_path: Path) -> None:
    held = keystore(tmp_path)
    own, other = keep(tmp_path, OWN, 1), keep(tmp_path, OTHER, 1)
    assert (held.open(OWN, 1), held.open(OTHER, 1)) == (own, other)
    place(tmp_path, OWN, 1).unlink()
    place(tmp_path, OTHER, 1).unlink()
    held.purge(OWN)
    assert held.find(OWN, 1) is None
    assert held.open(OTHER, 1) == other


def test_destroying_leaves_nothing_of_any_version(tmp_path: Path) -> None:
    held = keystore(tmp_path)
    for version in (1, 2, 11):
        keep(tmp_path, OWN, version)
        held.open(OWN, version)
    other = keep(tmp_path, OTHER, 1)
    place(tmp_path, OWN, 1).with_name("1.new").write_bytes(b"left by a rekey that died")
    assert held.destroy(OWN) == 3
    assert held.destroy(OWN) == 0
    for version in (1, 2, 11):
        with pytest.raises(KeyUnavailable):
            held.open(OWN, version)
    assert not place(tmp_path, OWN, 1).parent.exists()
    assert held.open(OTHER, 1) == other


def test_wrapping_anew_needs_the_old_root_no_longer(tmp_path: Path) -> None:
    key = keep(tmp_path, OWN, 1, OLD)
    held = keystore(tmp_path, BOTH)
    assert held.wrapped_by() == {"local:1": 1}
    assert held.rewrap(KeyName(OWN.hex, 1))
    assert held.wrapped_by() == {"local:2": 1}
    assert not held.rewrap(KeyName(OWN.hex, 1))
    assert not held.rewrap(KeyName(OTHER.hex, 1))
    assert opened(tmp_path, OWN, 1, NEW) == key
    with pytest.raises(KeyUnavailable):
        opened(tmp_path, OWN, 1, OLD)
    assert [file.name for file in place(tmp_path, OWN, 1).parent.iterdir()] == ["1"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lives", range(3))
def test_wrapping_anew_may_die_anywhere(tmp_path: Path, lives: int, *, after: bool) -> None:
    key = keep(tmp_path, OWN, 1, OLD)
    dying = Keystore(DyingStore(tmp_path, lives=lives, after=after), LocalKms(BOTH))
    with pytest.raises(Killed):
        dying.rewrap(KeyName(OWN.hex, 1))
    assert opened(tmp_path, OWN, 1, BOTH) == key
    keystore(tmp_path, BOTH).rewrap(KeyName(OWN.hex, 1))
    assert opened(tmp_path, OWN, 1, NEW) == key
    assert keystore(tmp_path).wrapped_by() == {"local:2": 1}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_making_a_key_may_die_anywhere(tmp_path: Path, *, after: bool) -> None:
    dying = Keystore(DyingStore(tmp_path, lives=0, after=after), LocalKms(BOTH))
    with pytest.raises(Killed):
        dying.create(OWN, 1)
    keystore(tmp_path).create(OWN, 2)
    opened(tmp_path, OWN, 2)


def test_a_store_that_lies_does_not_lose_a_key(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="does not come back"):
        Keystore(LyingStore(tmp_path, "/1"), LocalKms(BOTH)).create(OWN, 1)
    place(tmp_path, OWN, 1).unlink()
    key = keep(tmp_path, OWN, 1, OLD)
    with pytest.raises(KeyUnavailable, match="does not come back"):
        Keystore(LyingStore(tmp_path, ".new"), LocalKms(BOTH)).rewrap(KeyName(OWN.hex, 1))
    assert opened(tmp_path, OWN, 1, OLD) == key
    with pytest.raises(KeyUnavailable, match="does not come back"):
        Keystore(LyingStore(tmp_path, "/1"), LocalKms(BOTH)).rewrap(KeyName(OWN.hex, 1))
    place(tmp_path, OWN, 1).with_name("1.new").rename(place(tmp_path, OWN, 1))
    assert opened(tmp_path, OWN, 1, NEW) == key
