"""An object on its way into a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from control_plane.adapters.object_stores.folders import (
    PENDING,
    forget,
    make_folders,
    stored,
    sync_folder,
    translated,
)
from control_plane.adapters.object_stores.store import StoredObject
from control_plane.domain.errors import StoreUnavailable

_RENAMES = 10


class FileUpload:
    """See ``Upload``. Nothing is held in memory."""

    def __init__(self, directory: Path, key: str, place: Path) -> None:
        self._directory = directory
        self._key = key
        self._place = place
        self._folder = directory / PENDING / uuid4().hex
        self._draft = self._folder / key
        self._size = 0
        with translated(f"writing {key} in file://{directory}"):
            make_folders(self._draft.parent, directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._draft, flags, 0o600), "wb", buffering=0)

    def write(self, data: bytes) -> None:
        with self._aborting_on_failure():
            view = memoryview(data)
            while view:
                written = self._file.write(view)
                self._size += written
                view = view[written:]

    def finish(self) -> StoredObject:
        with self._aborting_on_failure():
            os.fsync(self._file.fileno())
            self._file.close()
            self._rename()
            sync_folder(self._place.parent)
            forget(self._folder)
            found = stored(self._key, self._place)
            if found is None or found.size != self._size:
                raise StoreUnavailable(f"{self._key} was written, and is not there")
            return found

    def abort(self) -> None:
        with suppress(OSError):
            self._file.close()
        forget(self._folder)

    def _rename(self) -> None:
        for _ in range(_RENAMES):
            make_folders(self._place.parent, self._directory)
            # A folder that has become empty is removed by whoever deletes its last object.
            with suppress(FileNotFoundError):
                self._draft.rename(self._place)
                return
        raise StoreUnavailable(f"the upload of {self._key} was taken away before its end")

    @contextmanager
    def _aborting_on_failure(self) -> Iterator[None]:
        if self._file.closed:
            raise StoreUnavailable(f"the upload of {self._key} is over; begin another one")
        try:
            with translated(f"writing {self._key} in file://{self._directory}"):
                yield
        except BaseException:
            self.abort()
            raise
