"""A store of files: where its files are, who may read them, and what is left when it fails."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.object_stores.store import PendingUpload
from control_plane.domain.errors import Invalid, ObjectMissing, StoreRefused, StoreUnavailable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    (tmp_path / "outside").write_text("not an object")
    return root


@pytest.fixture
def store(root: Path) -> FileStore:
    return FileStore(root)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def folders(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}


@pytest.mark.parametrize(
    "key",
    [
        "../outside",
        "a/../../outside",
        "..",
        ".",
        "",
        "/etc/hostname",
        "a//b",
        "a/",
        "./a",
        ".pending/x",
        "a/.hidden",
        "nul\0byte",
    ],
)
def test_no_key_leads_out_or_into_what_is_hidden(store: FileStore, root: Path, key: str) -> None:
    with pytest.raises(StoreRefused, match="cannot be the key"):
        store.put(key, b"x")
    with pytest.raises(StoreRefused, match="cannot be the key"):
        store.get(key)
    with pytest.raises(StoreRefused, match="cannot be the key"):
        store.head(key)
    with pytest.raises(StoreRefused, match="cannot be the key"):
        store.delete([key])
    assert files(root.parent) == {"outside"}
    assert folders(root) == set()


@pytest.mark.parametrize("prefix", ["../", "../outside", "a/../../", "../store/../"])
def test_no_list_leads_out(store: FileStore, prefix: str) -> None:
    with pytest.raises(StoreRefused, match="cannot be the key"):
        list(store.list(prefix))


def test_links_are_not_followed(store: FileStore, root: Path) -> None:
    store.put("folder/object", b"x")
    (root / "folder" / "link").symlink_to(root.parent / "outside")
    (root / "elsewhere").symlink_to(root.parent)
    assert [found.key for found in store.list("")] == ["folder/object"]
    assert store.head("folder/link") is None
    with pytest.raises(ObjectMissing):
        store.get("folder/link")
    for key in ("elsewhere/outside", "elsewhere/new"):
        with pytest.raises(StoreRefused, match="leads out"):
            store.put(key, b"x")
        with pytest.raises(StoreRefused, match="leads out"):
            store.get(key)
    store.put("folder/link", b"an object of its own")
    assert (root.parent / "outside").read_text() == "not an object"


@pytest.mark.parametrize("upload_id", ["", ".", "..", "../..", "x" * 32, "0" * 31, "a/" + "0" * 32])
def test_no_id_of_an_upload_leads_out(store: FileStore, root: Path, upload_id: str) -> None:
    before = store.put("object", b"x").modified_at
    writer = store.upload("begun")
    with pytest.raises(StoreRefused, match="not the id of an upload"):
        store.abort_pending(PendingUpload("object", upload_id, before))
    writer.finish()
    assert files(root) == {"object", "begun"}


def test_only_the_owner_may_read(store: FileStore, root: Path) -> None:
    before = os.umask(0)
    try:
        store.put("a/b/object", b"x")
        writer = store.upload("a/c/draft")
        writer.write(b"y")
        modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}
        writer.abort()
    finally:
        os.umask(before)
    assert len(modes) == 8
    for path, mode in modes.items():
        assert mode == (0o700 if path.suffix == "" and mode & 0o100 else 0o600), path


def test_nothing_is_left_of_what_was_deleted_or_given_up(store: FileStore, root: Path) -> None:
    for key in ("a/b/1", "a/b/2", "a/c/3"):
        store.put(key, b"x")
    store.delete(["a/b/1", "a/c/3"])
    assert folders(root) == {"a", "a/b", ".pending"}
    store.delete(["a/b/2"])
    store.upload("d/e").abort()
    assert folders(root) == {".pending"}
    assert files(root) == set()


def test_a_directory_that_is_not_there_is_not_made(store: FileStore, root: Path) -> None:
    root.rmdir()
    for ask in (
        lambda: store.put("object", b"x"),
        lambda: store.get("object"),
        lambda: store.head("object"),
        lambda: list(store.list("")),
        lambda: list(store.pending("")),
        store.self_test,
    ):
        with pytest.raises(StoreRefused, match="is not there; mount its disk"):
            ask()
    assert not root.exists()


def test_an_object_below_an_object_is_refused(store: FileStore, root: Path) -> None:
    store.put("a/object", b"x")
    with pytest.raises(StoreRefused, match="writing a/object/below"):
        store.put("a/object/below", b"y")
    with pytest.raises(StoreRefused, match="writing a in"):
        store.put("a", b"y")
    assert files(root) == {"a/object"}
    assert store.get("a/object") == b"x"


def test_what_a_killed_process_left_can_be_found(root: Path) -> None:
    writer = FileStore(root).upload("backups/one")
    writer.write(b"half of ")
    after = FileStore(root)
    assert list(after.list("")) == []
    (left,) = after.pending("backups/")
    assert left.key == "backups/one"
    after.abort_pending(left)
    assert list(after.pending("")) == []
    with pytest.raises(StoreUnavailable, match="taken away"):
        writer.finish()
    assert files(root) == set()


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process may become larger; the disk would be full as suddenly."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    yield 64 * 1024
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_fails_leaves_nothing(store: FileStore, root: Path, small_files: int) -> None:
    store.put("object", b"as it was")
    writer = store.upload("object")
    writer.write(bytes(small_files))
    with pytest.raises(StoreRefused, match=r"writing object in file://.*: File too large"):
        writer.write(b"one too many")
    with pytest.raises(StoreUnavailable, match="is over"):
        writer.finish()
    assert files(root) == {"object"}
    assert store.get("object") == b"as it was"


def test_there_are_no_links_to_files(store: FileStore) -> None:
    store.put("object", b"x")
    with pytest.raises(Invalid, match="files have no links"):
        store.link("object", 60)
