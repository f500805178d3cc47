"""An object on its way to S3: in one request if it is small, else in parts."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from control_plane.adapters.object_stores.s3_requests import S3Requests
from control_plane.adapters.object_stores.store import PART_BYTES, StoredObject
from control_plane.domain.errors import (
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    TenantryError,
)

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

_MOST_PARTS = 10_000
# So many parts have the same size, which is all that some stores accept. After them the size
# doubles every thousand parts: 16 GiB, then up to 3.9 TiB, and few gigabytes take little memory.
_EQUAL_PARTS = 2_000
_THREADS = 4
_BYTES_IN_FLIGHT = _THREADS * PART_BYTES
_SMALL = 64 * 1024

_Pieces = list[bytearray | memoryview]


def part_bytes(number: int) -> int:
    """How large part ``number`` is, counted from 1."""
    doublings = max(0, (number - 1) // 1_000 - _EQUAL_PARTS // 1_000 + 1)
    return int(PART_BYTES * 2**doublings)


class S3Upload:
    """See ``Upload``. At most four threads send; what waits to be sent is a part or two."""

    def __init__(self, requests: S3Requests, key: str) -> None:
        self._requests = requests
        self._key = key
        self._size = 0
        self._held: _Pieces = []
        self._held_bytes = 0
        self._upload_id: str | None = None
        self._before: StoredObject | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="upload")
        self._parts: list[Future[CompletedPartTypeDef]] = []
        self._flying: dict[Future[CompletedPartTypeDef], int] = {}
        self._stop = threading.Event()

    def write(self, data: bytes) -> None:
        with self._aborting_on_failure():
            view = memoryview(data)
            while view:
                # A full part waits for the next byte, so that the last one is never empty.
                room = part_bytes(len(self._parts) + 1) - self._held_bytes
                if not room:
                    self._send_part()
                    continue
                self._hold(view[:room])
                view = view[room:]

    def finish(self) -> StoredObject:
        with self._aborting_on_failure():
            if self._upload_id is None:
                stored = self._requests.put(self._key, self._held, self._stop)
            else:
                self._send_part()
                stored = self._complete(self._upload_id)
        self._end()
        return stored

    def abort(self) -> None:
        if self._stop.is_set():
            return
        self._end()
        if self._upload_id is not None:
            with suppress(TenantryError):
                self._requests.abort(self._key, self._upload_id)

    def _end(self) -> None:
        """Nothing is sent any more, also not by a thread that was in a pause."""
        self._stop.set()
        self._held.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def _aborting_on_failure(self) -> Iterator[None]:
        if self._stop.is_set():
            raise StoreUnavailable(f"the upload of {self._key} is over; begin another one")
        try:
            yield
        except ObjectMissing as error:
            self.abort()
            raise StoreUnavailable(f"the store forgot the upload: {error.message}") from error
        except BaseException:
            self.abort()
            raise

    def _hold(self, piece: memoryview) -> None:
        if len(piece) >= _SMALL:
            self._held.append(piece)
        elif self._held and isinstance(self._held[-1], bytearray):
            self._held[-1] += piece
        else:
            self._held.append(bytearray(piece))
        self._held_bytes += len(piece)
        self._size += len(piece)

    def _send_part(self) -> None:
        number = len(self._parts) + 1
        if number > _MOST_PARTS:
            raise StoreRefused(f"{self._key} needs more than {_MOST_PARTS} parts; it is too large")
        if self._upload_id is None:
            self._before = self._requests.head(self._key)
            self._upload_id = self._requests.begin(self._key, self._stop)
        self._land(until=_BYTES_IN_FLIGHT - self._held_bytes)
        part = self._threads.submit(self._send, self._upload_id, number, self._held)
        self._parts.append(part)
        self._flying[part] = self._held_bytes
        self._held, self._held_bytes = [], 0

    def _send(self, upload_id: str, number: int, pieces: _Pieces) -> "CompletedPartTypeDef":
        return self._requests.send_part(self._key, upload_id, number, pieces, self._stop)

    def _land(self, until: int) -> None:
        """Wait until no more than so many bytes are in flight, or none is; raise what failed."""
        while self._flying and sum(self._flying.values()) > until:
            landed, _ = wait(self._flying, return_when=FIRST_COMPLETED)
            for part in landed:
                del self._flying[part]
                part.result()

    def _complete(self, upload_id: str) -> StoredObject:
        self._land(until=0)
        parts = [part.result() for part in self._parts]
        try:
            self._requests.complete(self._key, upload_id, parts, self._stop)
        except (StoreUnavailable, ObjectMissing):
            # It may have been done all the same, by an attempt whose answer was lost.
            found = self._requests.head(self._key)
            if found is None or found == self._before or found.size != self._size:
                raise
            return found
        return self._requests.written(self._key, self._size)
