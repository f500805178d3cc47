import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters import key_file as files
from control_plane.adapters.key_file import KeyFile
from control_plane.adapters.keyring import Keyring
from control_plane.domain.errors import KeyUnavailable

OWNER = uuid.UUID(int=7)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "root.keys"
    Keyring.create(path)
    return path


ring = Keyring({1: bytes(range(32))}, 1)


@given(st.text(), st.uuids(), st.text(max_size=20), st.integers(0, 1 << 40))
def test_what_is_sealed_opens_in_its_context(
    secret: str, owner: uuid.UUID, purpose: str, version: int
) -> None:
    sealed = ring.seal(secret, owner=owner, purpose=purpose, version=version)
    assert ring.open(sealed, owner=owner, purpose=purpose, version=version) == secret


@pytest.mark.parametrize(
    "context",
    [
        {"owner": uuid.UUID(int=8), "purpose": "login|a", "version": 1},
        {"owner": OWNER, "purpose": "login|b", "version": 1},
        {"owner": OWNER, "purpose": "login|a", "version": 2},
    ],
)
def test_another_context_opens_nothing(context: dict[str, object]) -> None:
    sealed = ring.seal("s3cret", owner=OWNER, purpose="login|a", version=1)
    with pytest.raises(KeyUnavailable):
        ring.open(sealed, **context)  # type: ignore[arg-type]  # the three contexts above


@given(st.integers(min_value=0))
def test_a_changed_byte_opens_nothing(place: int) -> None:
    sealed = bytearray(ring.seal("s3cret", owner=OWNER, purpose="p", version=1))
    sealed[place % len(sealed)] ^= 1
    with pytest.raises(KeyUnavailable):
        ring.open(bytes(sealed), owner=OWNER, purpose="p", version=1)


@given(st.binary(max_size=40))
def test_garbage_opens_nothing(garbage: bytes) -> None:
    with pytest.raises(KeyUnavailable):
        ring.open(garbage, owner=OWNER, purpose="p", version=1)


def test_another_keyring_opens_nothing() -> None:
    sealed = ring.seal("s3cret", owner=OWNER, purpose="p", version=1)
    with pytest.raises(KeyUnavailable):
        Keyring({1: bytes(32)}, 1).open(sealed, owner=OWNER, purpose="p", version=1)


def test_an_old_epoch_still_opens_and_the_new_one_seals() -> None:
    sealed = ring.seal("old", owner=OWNER, purpose="p", version=1)
    both = Keyring({1: bytes(range(32)), 2: os.urandom(32)}, 2)
    assert both.open(sealed, owner=OWNER, purpose="p", version=1) == "old"
    fresh = both.seal("new", owner=OWNER, purpose="p", version=1)
    with pytest.raises(KeyUnavailable):
        ring.open(fresh, owner=OWNER, purpose="p", version=1)


def test_no_thread_seals_with_an_old_key_while_another_one_reads_the_new_file(
    key_file: Path,
) -> None:
    with ThreadPoolExecutor(8) as threads:
        for epoch in range(2, 102):
            changed = Keyring.load(key_file)
            files.change(key_file, KeyFile.with_new_epoch)
            seen = list(threads.map(lambda _, changed=changed: changed.active, range(8)))
            assert seen == [epoch] * 8


def test_the_file_is_for_its_owner_alone(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    Keyring.load(key_file)
    key_file.chmod(0o640)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        Keyring.load(key_file)


def test_a_link_is_refused(key_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(key_file)
    with pytest.raises(KeyUnavailable, match="symbolic link"):
        Keyring.load(link)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="admin keys init"):
        Keyring.load(tmp_path / "none")


def test_an_existing_file_is_never_touched(key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(KeyUnavailable):
        Keyring.create(key_file)
    assert key_file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{}", b'{"epochs": {}}', b'{"epochs": {"x": {}}}'])
def test_a_damaged_file_is_one_clear_error(key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        Keyring.load(key_file)
