"""What every store promises, on a real S3 server and on files."""

import datetime as dt
import os
import tracemalloc

import pytest

from control_plane.adapters.object_stores.store import PART_BYTES
from control_plane.domain.errors import (
    BackupCorrupt,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)
from tests.integration.object_store.s3_server import AnyStore

MIB = 1024 * 1024


def upload(store: AnyStore, key: str, *pieces: bytes) -> int:
    writer = store.upload(key)
    for piece in pieces:
        writer.write(piece)
    return writer.finish().size


def contents(store: AnyStore, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix)]


@pytest.mark.parametrize("size", [0, 1, 100_000, PART_BYTES + 1])
def test_what_is_put_is_what_is_got(store: AnyStore, size: int) -> None:
    data = os.urandom(size)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=2)
    stored = store.put("folder/object", data)
    assert (stored.key, stored.size) == ("folder/object", size)
    assert before < stored.modified_at < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    assert store.get("folder/object") == data
    assert b"".join(store.read("folder/object", size)) == data
    assert store.head("folder/object") == stored


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [1],
        [PART_BYTES],
        [PART_BYTES, 1],
        [5 * MIB] * 5,
        [3 * PART_BYTES + 5],
        [37] * 1_000 + [MIB + 16] * 9 + [1],
    ],
    ids=["nothing", "empty", "byte", "a-part", "and-one", "parts", "at-once", "as-sealed"],
)
def test_an_upload_is_the_sum_of_its_pieces(store: AnyStore, sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    assert upload(store, "a/b/c", *pieces) == sum(sizes)
    assert b"".join(store.read("a/b/c", sum(sizes))) == b"".join(pieces)
    assert list(store.pending("")) == []


def test_nothing_is_there_before_an_upload_ends(store: AnyStore) -> None:
    store.put("here/object", b"old")
    for key in ("here/object", "there/object"):
        writer = store.upload(key)
        writer.write(os.urandom(PART_BYTES + 1))
        assert store.get("here/object") == b"old"
        assert contents(store) == ["here/object"]
        writer.abort()
        writer.abort()
    assert contents(store) == ["here/object"]
    assert list(store.pending("")) == []


def test_an_upload_that_is_over_takes_no_more(store: AnyStore) -> None:
    ended, given_up = store.upload("ended"), store.upload("given-up")
    ended.write(b"1")
    ended.finish()
    given_up.abort()
    for writer in (ended, given_up):
        with pytest.raises(StoreUnavailable, match="is over"):
            writer.write(b"2")
        with pytest.raises(StoreUnavailable, match="is over"):
            writer.finish()
    ended.abort()
    assert store.get("ended") == b"1"
    assert store.head("given-up") is None


def test_what_is_replaced_is_gone(store: AnyStore) -> None:
    store.put("object", b"a long first version")
    store.put("object", b"second")
    assert store.get("object") == b"second"
    upload(store, "object", os.urandom(PART_BYTES), b"third")
    assert contents(store) == ["object"]
    assert store.get("object")[-5:] == b"third"


def test_an_object_of_another_length_is_not_the_one(store: AnyStore) -> None:
    store.put("object", b"0123456789")
    for size in (0, 9, 11):
        with pytest.raises(BackupCorrupt, match="has 10 bytes"):
            list(store.read("object", size))


def test_a_large_object_is_not_taken_for_a_small_one(store: AnyStore) -> None:
    store.put("object", b"0123456789")
    assert store.get("object", most=10) == b"0123456789"
    with pytest.raises(StoreRefused, match="at most 9 were expected"):
        store.get("object", most=9)


def test_what_is_missing_is_missing(store: AnyStore) -> None:
    store.put("folder/object", b"")
    for key in ("folder", "folder/other", "folder/object/below", "nothing/at/all"):
        assert store.head(key) is None
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(ObjectMissing):
            list(store.read(key, 0))
    assert contents(store, "nothing/") == []


def test_a_part_of_an_object(store: AnyStore) -> None:
    data = os.urandom(3 * MIB)
    store.put("object", data)
    for begin in (0, 1, MIB, 3 * MIB - 1):
        assert b"".join(store.read("object", len(data), begin)) == data[begin:]


def test_lists_are_sorted_whole_and_by_prefix(store: AnyStore) -> None:
    keys = ["a/1", "a/2/x", "a/20", "a/b/c/d", "ab", "b-1/ü=+@ x"]
    for key in reversed(keys):
        store.put(key, key.encode())
    assert contents(store) == sorted(keys)
    assert [(found.key, found.size) for found in store.list("a/2")] == [("a/2/x", 5), ("a/20", 4)]
    assert contents(store, "a/b/c/") == ["a/b/c/d"]
    assert contents(store, "b") == ["b-1/ü=+@ x"]
    assert store.get("b-1/ü=+@ x") == "b-1/ü=+@ x".encode()


def test_deleting_what_is_there_and_what_is_not(store: AnyStore) -> None:
    for key in ("a/1", "a/2", "b/1"):
        store.put(key, b"x")
    store.delete(["a/1", "a/3", "c/1", "b/1"])
    assert contents(store) == ["a/2"]
    store.delete([])
    store.delete(["a/2"])
    assert contents(store) == []
    store.put("a/1", b"again")
    assert store.get("a/1") == b"again"


def test_uploads_that_nobody_finished_are_found_and_forgotten(store: AnyStore) -> None:
    begun = [store.upload(key) for key in ("backups/one", "backups/two", "exports/three")]
    for writer in begun:
        writer.write(os.urandom(PART_BYTES + 1))
    found = list(store.pending("backups/"))
    assert sorted(upload.key for upload in found) == ["backups/one", "backups/two"]
    recent = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    assert all(upload.begun_at > recent for upload in found)
    assert len({upload.upload_id for upload in found}) == 2
    for upload_ in found:
        store.abort_pending(upload_)
        store.abort_pending(upload_)
    assert [upload.key for upload in store.pending("")] == ["exports/three"]
    with pytest.raises(StoreUnavailable):
        begun[0].finish()
    assert contents(store) == []
    for writer in begun:
        writer.abort()
    assert list(store.pending("")) == []


def test_the_test_of_a_store_leaves_nothing(store: AnyStore) -> None:
    done = store.self_test()
    assert len(done) == 6
    assert "in parts" in done[2]
    assert contents(store) == []
    assert list(store.pending("")) == []


def test_memory_stays_flat(store: AnyStore) -> None:
    pieces = 96
    writer = store.upload("large")
    tracemalloc.start()
    try:
        for _ in range(pieces):
            writer.write(os.urandom(MIB))
        stored = writer.finish()
        for _ in store.read("large", stored.size):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stored.size == pieces * MIB
    # Four parts in flight, one that is filled, and what the requests take themselves.
    assert most < 7 * PART_BYTES
