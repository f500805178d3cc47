"""The file with the root keys: who may read it, where it may lie, how it changes."""

import stat
from multiprocessing import get_context
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.adapters import key_file
from control_plane.adapters.key_file import KeyFile
from control_plane.adapters.keyring import Keyring
from control_plane.domain.errors import KeyUnavailable

OWNER = UUID(int=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys" / "root.keys"
    key_file.create(made, key_file.new())
    return made


def test_a_new_file_is_for_its_owner_alone_and_has_one_epoch(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = key_file.read(path)
    assert (content.active, list(content.keys())) == (1, [1])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        key_file.read(path)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        key_file.change(path, KeyFile.with_new_epoch)


def test_a_link_is_refused_and_not_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(KeyUnavailable, match="symbolic link"):
        key_file.read(link)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyUnavailable, match="cannot create"):
        key_file.create(dangling, key_file.new())
    assert not (tmp_path / "elsewhere").exists()


def test_keys_do_not_lie_in_the_data_of_a_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "base").mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    for place in (data / "root.keys", data / "base" / "keys" / "root.keys"):
        with pytest.raises(KeyUnavailable, match="data of a Postgres server"):
            key_file.create(place, key_file.new())
    (tmp_path / "way").symlink_to(data)
    with pytest.raises(KeyUnavailable, match="data of a Postgres server"):
        key_file.create(tmp_path / "way" / "root.keys", key_file.new())
    assert not list(tmp_path.rglob("root.keys"))


def test_keys_do_not_lie_in_the_store_they_protect(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    store.mkdir()
    for place in (store / "root.keys", store / "deep" / "root.keys"):
        with pytest.raises(KeyUnavailable, match="which it protects"):
            key_file.create(place, key_file.new(), apart_from=[store])
    key_file.create(tmp_path / "backups-keys" / "root.keys", key_file.new(), apart_from=[store])


def test_a_new_epoch_seals_and_the_others_open(path: Path) -> None:
    keyring = Keyring.load(path)
    old = keyring.seal("old", owner=OWNER, purpose="p", version=1)
    changed = key_file.change(path, KeyFile.with_new_epoch)
    assert (changed.active, changed.epochs["1"].state) == (2, "retained")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    fresh = Keyring.load(path).seal("new", owner=OWNER, purpose="p", version=1)
    assert keyring.open(old, owner=OWNER, purpose="p", version=1) == "old"
    assert keyring.open(fresh, owner=OWNER, purpose="p", version=1) == "new"
    assert keyring.active == 2


def test_a_number_is_not_used_for_a_second_key(path: Path) -> None:
    key_file.change(path, KeyFile.with_new_epoch)
    key_file.change(path, lambda now: now.without(1))
    third = key_file.change(path, KeyFile.with_new_epoch)
    assert sorted(third.keys()) == [2, 3]


def test_a_retired_epoch_opens_nothing_any_more(path: Path) -> None:
    keyring = Keyring.load(path)
    old = keyring.seal("old", owner=OWNER, purpose="p", version=1)
    key_file.change(path, KeyFile.with_new_epoch)
    key_file.change(path, lambda now: now.without(1))
    with pytest.raises(KeyUnavailable):
        keyring.open(old, owner=OWNER, purpose="p", version=1)


def test_a_process_that_runs_survives_a_file_that_does_not(path: Path) -> None:
    keyring = Keyring.load(path)
    sealed = keyring.seal("s", owner=OWNER, purpose="p", version=1)
    good = path.read_bytes()
    path.unlink()
    assert keyring.open(sealed, owner=OWNER, purpose="p", version=1) == "s"
    path.write_bytes(b"{")
    path.chmod(0o600)
    assert keyring.open(sealed, owner=OWNER, purpose="p", version=1) == "s"
    with pytest.raises(KeyUnavailable):
        Keyring.load(path)
    path.write_bytes(good)
    key_file.change(path, KeyFile.with_new_epoch)
    assert keyring.active == 2


def test_what_a_dead_change_left_is_no_obstacle(path: Path) -> None:
    left = path.with_name(f".{path.name}.new")
    left.write_bytes(b"half a fi")
    changed = key_file.change(path, KeyFile.with_new_epoch)
    assert key_file.read(path) == changed
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def _add_epochs(path: Path, number: int) -> None:
    for _ in range(number):
        key_file.change(path, KeyFile.with_new_epoch)


def test_of_changes_at_once_none_is_lost(path: Path) -> None:
    context = get_context("spawn")
    workers = [context.Process(target=_add_epochs, args=(path, 5)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(key_file.read(path).keys()) == list(range(1, 17))


def test_an_epoch_shows_no_key(path: Path) -> None:
    content = key_file.read(path)
    assert content.epochs["1"].key not in repr(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"epochs": {"1": {"key": "AAAA", "created": "x", "state": "active"}}}',
        b'{"epochs": {"1": {"key": "AAAA", "created": "x", "state": "retired"}}}',
        b'{"epochs": {"0": {"key": "%s", "created": "x", "state": "active"}}}' % (b"A" * 43 + b"="),
    ],
)
def test_a_key_that_is_none_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        key_file.read(path)


def test_two_active_epochs_are_refused(path: Path) -> None:
    epoch = key_file.read(path).epochs["1"]
    other = key_file.new().epochs["1"]
    path.unlink()
    key_file.create(path, KeyFile({"1": epoch, "2": other}))
    with pytest.raises(KeyUnavailable, match="2 epochs are active"):
        key_file.read(path)
