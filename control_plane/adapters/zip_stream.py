"""A zip file as a stream: nothing of it is kept, and no size has to be known beforehand."""

import datetime as dt
from collections.abc import Generator, Iterable, Iterator
from typing import IO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import msgspec

_MODE = 0o644 << 16


class Member(msgspec.Struct, frozen=True):
    """A file in the zip; one that is ``packed`` already is not compressed again."""

    name: str
    pieces: Iterable[bytes]
    packed: bool = False


def zipped(members: Iterable[Member], at: dt.datetime) -> Generator[bytes, None, None]:
    """The zip file in pieces; each member is asked for when the one before is through.

    Sizes follow the members' data, in the form for files of any size (zip64).
    """
    held = _Held()
    with ZipFile(cast("IO[bytes]", held), "w") as archive:
        for member in members:
            entry = ZipInfo(member.name, at.timetuple()[:6])
            entry.compress_type = ZIP_STORED if member.packed else ZIP_DEFLATED
            entry.external_attr = _MODE
            with archive.open(entry, "w", force_zip64=True) as file:
                for piece in member.pieces:
                    file.write(piece)
                    yield from held.take()
            yield from held.take()
    yield from held.take()


class _Held:
    """What the zip writer has written since somebody looked."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        """Everything is here already."""

    def take(self) -> Iterator[bytes]:
        if self._data:
            data = bytes(self._data)
            self._data.clear()
            yield data
