"""Objects as files below one directory: for tests, for small installations, for a mounted disk.

An object is written as ``.pending/<id>/<key>`` and renamed to its place once it is whole and on
the disk, so that whoever looks sees all of it or nothing.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from control_plane.adapters.object_stores.file_upload import FileUpload
from control_plane.adapters.object_stores.folders import (
    PENDING,
    folders_in,
    forget,
    keys_below,
    pending_upload,
    remove_empty,
    stored,
    translated,
)
from control_plane.adapters.object_stores.proving import prove
from control_plane.adapters.object_stores.store import PendingUpload, StoredObject
from control_plane.domain.errors import BackupCorrupt, Invalid, ObjectMissing, StoreRefused

_PIECE_BYTES = 1024 * 1024
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


class FileStore:
    """See ``ObjectStore``. The directory must be there: a disk that is not mounted is not made."""

    def __init__(self, directory: Path) -> None:
        self.url = f"file://{directory}"
        self._directory = directory

    def put(self, key: str, data: bytes) -> StoredObject:
        upload = self.upload(key)
        upload.write(data)
        return upload.finish()

    def get(self, key: str, most: int = 64 * 1024 * 1024) -> bytes:
        def accept(size: int) -> None:
            if size > most:
                raise StoreRefused(f"{key} has {size} bytes; at most {most} were expected")

        return b"".join(self._pieces(key, accept))

    def upload(self, key: str) -> FileUpload:
        return FileUpload(self._directory, key, self._place(key))

    def read(self, key: str, size: int, begin: int = 0) -> Iterator[bytes]:
        """See ``ObjectStore``; ``begin`` leaves out what is before it."""

        def accept(found: int) -> None:
            if found != size:
                raise BackupCorrupt(f"{key} has {found} bytes in the store, and not {size}")

        yield from self._pieces(key, accept, begin)

    def head(self, key: str) -> StoredObject | None:
        with translated(f"looking for {key} in {self.url}"):
            return stored(key, self._place(key))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            place = self._place(key)
            with (
                translated(f"deleting {key} in {self.url}"),
                suppress(FileNotFoundError, NotADirectoryError),
            ):
                place.unlink()
                remove_empty(place.parent, self._directory)

    def pending(self, prefix: str) -> Iterator[PendingUpload]:
        self._require_directory()
        with translated(f"listing uploads of {prefix} in {self.url}"):
            for folder in folders_in(self._directory / PENDING):
                found = pending_upload(folder)
                if found is not None and found.key.startswith(prefix):
                    yield found

    def abort_pending(self, upload: PendingUpload) -> None:
        self._require_directory()
        if _UPLOAD_ID.fullmatch(upload.upload_id) is None:
            raise StoreRefused(f"{upload.upload_id!r} is not the id of an upload")
        forget(self._directory / PENDING / upload.upload_id)

    def link(self, key: str, seconds: int) -> str:
        raise Invalid(f"files have no links: {key} cannot be shown for {seconds} seconds")

    def self_test(self) -> Sequence[str]:
        return prove(self, self.read)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = prefix.rpartition("/")[0]
        start = self._place(folder) if folder else self._directory
        self._require_directory()
        with translated(f"listing {prefix} in {self.url}"):
            below = (str((start / k).relative_to(self._directory)) for k in keys_below(start))
            for key in sorted(key for key in below if key.startswith(prefix)):
                found = stored(key, self._directory / key)
                if found is not None:
                    yield found

    def _pieces(self, key: str, accept: Callable[[int], None], begin: int = 0) -> Iterator[bytes]:
        with translated(f"reading {key} in {self.url}"), self._opened(key) as file:
            size = os.fstat(file.fileno()).st_size
            accept(size)
            at = file.seek(begin)
            while at < size:
                piece = file.read(min(_PIECE_BYTES, size - at))
                if not piece:
                    raise BackupCorrupt(f"{key} was cut short while it was read")
                at += len(piece)
                yield piece

    def _opened(self, key: str) -> FileIO:
        place = self._place(key)
        with suppress(FileNotFoundError):
            if stored(key, place) is not None:
                descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                return FileIO(descriptor)
        raise ObjectMissing(f"{key} is not in {self.url}")

    def _place(self, key: str) -> Path:
        """Where an object is; always below the directory.

        Raises:
            StoreRefused: the key would lead elsewhere, or into what is hidden; or there is no
                directory.
        """
        self._require_directory()
        if "\0" in key or any(not part or part.startswith(".") for part in key.split("/")):
            raise StoreRefused(f"{key!r} cannot be the key of an object")
        place = self._directory / key
        if not place.parent.resolve().is_relative_to(self._directory.resolve()):
            raise StoreRefused(f"{key!r} leads out of {self.url}")
        return place

    def _require_directory(self) -> None:
        if not self._directory.is_dir():
            raise StoreRefused(
                f"the directory of {self.url} is not there; mount its disk, or make it, mode 0700"
            )
