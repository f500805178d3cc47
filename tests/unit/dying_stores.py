"""Stores on a directory that fail the way machines do: they die, stall, or say what is not so."""

import threading
from collections.abc import Iterable
from pathlib import Path

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.object_stores.store import StoredObject


class Killed(BaseException):
    """The process ends here: no handler of ours may stop it."""


class DyingStore(FileStore):
    """Dies at a write or deletion after ``lives`` others: before it, or once it is done."""

    def __init__(self, directory: Path, *, lives: int, after: bool) -> None:
        super().__init__(directory)
        self._lives, self._after = lives, after

    def put(self, key: str, data: bytes) -> StoredObject:
        self._step(after=False)
        stored = super().put(key, data)
        self._step(after=True)
        return stored

    def delete(self, keys: Iterable[str]) -> None:
        self._step(after=False)
        super().delete(keys)
        self._step(after=True)

    def _step(self, *, after: bool) -> None:
        if after == self._after:
            self._lives -= 1
            if self._lives < 0:
                raise Killed


class LyingStore(FileStore):
    """Says that it wrote, and wrote something else, for keys that end like this."""

    def __init__(self, directory: Path, ending: str) -> None:
        super().__init__(directory)
        self._ending = ending

    def put(self, key: str, data: bytes) -> StoredObject:
        return super().put(key, data[:-1] + b"?" if key.endswith(self._ending) else data)


class StallingStore(FileStore):
    """Stops at its first write of a key with this ending, until it is told to go on."""

    def __init__(self, directory: Path, ending: str) -> None:
        super().__init__(directory)
        self._ending = ending
        self.reached, self.go_on = threading.Event(), threading.Event()

    def put(self, key: str, data: bytes) -> StoredObject:
        if key.endswith(self._ending) and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(60), "nobody said to go on"
        return super().put(key, data)
