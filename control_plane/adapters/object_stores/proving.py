"""Whether a store keeps what it is given: what ``self_test`` does."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from uuid import uuid4

from control_plane.adapters.object_stores.store import PART_BYTES, ObjectStore
from control_plane.domain.errors import StoreRefused, TenantryError

TESTS_PREFIX = "self-test/"
_SMALL_BYTES = 100_000
_BEGIN = 12_345

Read = Callable[[str, int, int], Iterator[bytes]]


def prove(store: ObjectStore, read: Read) -> Sequence[str]:
    """Do with a test object all that backups do; what was done, one line each.

    ``read`` is given a key, the size of the object, and where to begin. Every object is deleted
    again.

    Raises:
        StoreUnavailable: the store does not answer.
        StoreRefused: what came back is not what went in, or an operation is not allowed.
    """
    folder = f"{TESTS_PREFIX}{uuid4().hex}/"
    small, large = f"{folder}small", f"{folder}large"
    try:
        return [
            _keeps(store, read, small, os.urandom(_SMALL_BYTES)),
            _replaces(store, small),
            _takes_parts(store, read, large),
            _forgets(store, folder),
            _lists(store, folder, {small, large}),
            _deletes(store, folder, [small, large]),
        ]
    finally:
        with suppress(TenantryError):
            store.delete([small, large])


def _keeps(store: ObjectStore, read: Read, key: str, data: bytes) -> str:
    store.put(key, data)
    _same(store.get(key), data, "an object that was read back")
    _same(b"".join(read(key, len(data), _BEGIN)), data[_BEGIN:], "a part of an object")
    return f"wrote {len(data)} bytes, read them back, whole and in part"


def _replaces(store: ObjectStore, key: str) -> str:
    data = b"replaced"
    store.put(key, data)
    _same(store.get(key), data, "an object that was replaced")
    return "replaced the object, and read what replaced it"


def _takes_parts(store: ObjectStore, read: Read, key: str) -> str:
    # Two parts, the second one not full.
    chunk = os.urandom(PART_BYTES // 4)
    upload = store.upload(key)
    for _ in range(5):
        upload.write(chunk)
    stored = upload.finish()
    _same(b"".join(read(key, stored.size, 0)), chunk * 5, "an object that was uploaded in parts")
    return f"uploaded {stored.size} bytes in parts, and read them back"


def _forgets(store: ObjectStore, folder: str) -> str:
    upload = store.upload(f"{folder}given-up")
    upload.write(os.urandom(PART_BYTES + 1))
    upload.abort()
    if store.head(f"{folder}given-up") is not None:
        raise StoreRefused("the store kept an upload that was given up")
    return "gave up an upload in parts, and nothing of it stayed"


def _lists(store: ObjectStore, folder: str, wanted: set[str]) -> str:
    found = {stored.key for stored in store.list(folder)}
    if found != wanted:
        raise StoreRefused(f"the store lists {sorted(found)}, and not {sorted(wanted)}")
    return f"listed the {len(found)} objects, and no other"


def _deletes(store: ObjectStore, folder: str, keys: list[str]) -> str:
    store.delete([*keys, f"{folder}never-there"])
    left = [key for key in keys if store.head(key) is not None]
    left += [stored.key for stored in store.list(folder)]
    if left:
        raise StoreRefused(f"the store still has {left[0]}, which was deleted")
    return "deleted them, and they are gone"


def _same(found: bytes, wanted: bytes, what: str) -> None:
    if found != wanted:
        raise StoreRefused(
            f"the store lies: {what} is not what was written "
            f"({len(found)} bytes, {len(wanted)} were expected)"
        )
