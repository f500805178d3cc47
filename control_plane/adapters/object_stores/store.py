"""What every object store can do. All calls block: run them in a thread.

Keys are relative to the store's own prefix. Errors are ours: ``StoreUnavailable`` when trying
again can help, ``StoreRefused`` when it cannot, ``ObjectMissing`` for what is not there.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

PART_BYTES = 8 * 1024 * 1024


class StoredObject(msgspec.Struct, frozen=True):
    """An object that is complete: its key, its length in bytes, when it was written."""

    key: str
    size: int
    modified_at: dt.datetime


class PendingUpload(msgspec.Struct, frozen=True):
    """An upload in parts that nobody has finished."""

    key: str
    upload_id: str
    begun_at: dt.datetime


class Upload(Protocol):
    """An object being written piece by piece; it exists from ``finish`` on and not before."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. Blocks while too many parts are in flight, so memory stays flat."""
        ...

    def finish(self) -> StoredObject:
        """Make the object exist, and look that it does, with the length that was written.

        Raises:
            StoreUnavailable: a part or the end of the upload failed for good; it was aborted.
        """
        ...

    def abort(self) -> None:
        """Give up; nothing stays. Never raises: what stays after all is swept later."""
        ...


class ObjectStore(Protocol):
    """One place for objects. ``url`` has no secret in it."""

    url: str

    def put(self, key: str, data: bytes) -> StoredObject: ...

    def get(self, key: str, most: int = 64 * 1024 * 1024) -> bytes:
        """A small object in whole.

        Raises:
            StoreRefused: it has more than ``most`` bytes.
        """
        ...

    def upload(self, key: str) -> Upload: ...

    def read(self, key: str, size: int) -> Iterator[bytes]:
        """The ``size`` bytes of an object; a transfer that was cut goes on where it stopped.

        Raises:
            StoreUnavailable: it was cut again and again.
            BackupCorrupt: the object has another length.
        """
        ...

    def head(self, key: str) -> StoredObject | None: ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]: ...

    def pending(self, prefix: str) -> Iterator[PendingUpload]: ...

    def abort_pending(self, upload: PendingUpload) -> None: ...

    def link(self, key: str, seconds: int) -> str:
        """A URL that lets anybody read this object for at most 900 seconds.

        Raises:
            Invalid: this store cannot make links.
        """
        ...

    def self_test(self) -> Sequence[str]:
        """Write, read back, read in part, upload in parts, list and delete a test object.

        What was done, a line for each.

        Raises:
            StoreRefused: what came back is not what went in, or an operation is not allowed.
        """
        ...
