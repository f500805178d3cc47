"""An archive on its way from ``pg_dump`` into the store: compressed, sealed, sent.

It blocks: run it in a thread. One thread keeps up with several dumps' worth of rows, so nothing
is handed from thread to thread, and the compressing and sealing leave Python's lock to
others.
"""

import threading
from collections.abc import Callable
from io import FileIO

import zstandard

from control_plane.adapters.backup_format import Sealer
from control_plane.adapters.object_stores.store import Upload

_PIECE_BYTES = 1024 * 1024
# What is looked back at stays in a core's own cache, next to the rows that two other programs hold
# there: about a fifth faster than level 1 itself on rows, which get no larger; source code got 7 %
# larger. The frame's checksum proves that what was compressed is what comes out.
_COMPRESSION = zstandard.ZstdCompressionParameters.from_level(
    1, window_log=17, hash_log=12, min_match=6, write_checksum=True
)


class ArchiveStream:
    """What ``pump`` reads goes through ``sealer`` into ``upload``; ``told`` hears how much came."""

    def __init__(self, sealer: Sealer, upload: Upload, told: Callable[[int], None]) -> None:
        self._sealer = sealer
        self._upload = upload
        self._told = told
        self._compressor = zstandard.ZstdCompressor(compression_params=_COMPRESSION).compressobj()
        self._stop = threading.Event()
        self.plain_bytes = 0

    def pump(self, source: FileIO) -> None:
        """Send all that comes from ``source``, but not the end, which says that it was whole."""
        with source:
            self._upload.write(self._sealer.header)
            buffer = memoryview(bytearray(_PIECE_BYTES))
            while not self._stop.is_set() and (size := _fill(source, buffer)):
                self._take(buffer[:size])

    def finish(self) -> None:
        """The archive was whole: send its end, and make the object exist."""
        self._upload.write(self._sealer.update(self._compressor.flush()))
        self._upload.write(self._sealer.finish())
        self._upload.finish()

    def stop(self) -> None:
        """Let ``pump`` take nothing more; it still waits for its source."""
        self._stop.set()

    def _take(self, piece: memoryview) -> None:
        self.plain_bytes += len(piece)
        if sealed := self._sealer.update(self._compressor.compress(piece)):
            self._upload.write(sealed)
        self._told(self.plain_bytes)


def _fill(source: FileIO, buffer: memoryview) -> int:
    """Read until the buffer is full or the source ends; how much came."""
    size = 0
    while size < len(buffer) and (got := source.readinto(buffer[size:])):
        size += got
    return size
