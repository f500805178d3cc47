"""The table of contents at the head of an archive of ``pg_dump``, in the custom format.

``pg_restore --list`` shows it too, but in lines that cannot be read back without doubt: a tenant
may give a schema any name. Read from the bytes, kind and name are never confused.
"""

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from control_plane.domain.errors import BackupCorrupt

# src/bin/pg_dump/pg_backup_archiver.c. Postgres 15 writes 1.14, 16 writes 1.15, 17 and 18 1.16.
_MAGIC = b"PGDMP"
_CUSTOM = 1
_OLDEST = (1, 14)
_NEWEST = (1, 16)
_COMPRESSION_IS_A_BYTE = (1, 15)
_HAS_RELKIND = (1, 16)
_DATE_PARTS = 7
# An archive names ten thousand tables in less than 10 MB.
_MOST_BYTES = 256 * 1024 * 1024


class Section(IntEnum):
    """When an entry is restored; what has none goes with the entries before it."""

    NONE = 1
    PRE_DATA = 2
    DATA = 3
    POST_DATA = 4


class Entry(msgspec.Struct, frozen=True):
    """One thing that an archive holds, for example of kind ``TABLE DATA``; some have no owner.

    ``needs`` are the numbers of what it depends on, in the archive or not.
    """

    number: int
    kind: str
    name: str
    schema: str
    owner: str
    section: int
    definition: str
    needs: frozenset[int]

    @property
    def words(self) -> str:
        """The entry as people know it."""
        place = f"{self.schema}." if self.schema else ""
        return f"{self.kind.lower()} {place}{self.name}"


class Contents(msgspec.Struct, frozen=True):
    """All entries of an archive, and the bytes of its head, after which its data begin."""

    entries: list[Entry]
    head: bytes


class _CutShort(Exception):
    """There must be more bytes."""


def read_contents(pieces: Iterator[bytes]) -> tuple[Contents, list[bytes]]:
    """The contents of the archive, and the pieces that were taken from ``pieces`` to read them.

    Raises:
        BackupCorrupt: it is no archive, or of a version that this release does not know.
    """
    taken: list[bytes] = []
    size, enough = 0, 1
    while True:
        piece = next(pieces, b"")
        taken.append(piece)
        size += len(piece)
        if piece and size < enough:
            continue
        try:
            return _parse(b"".join(taken)), taken
        except _CutShort as error:
            if not piece or size > _MOST_BYTES:
                message = "the archive does not hold the whole of its table of contents"
                raise BackupCorrupt(message) from error
            enough = 2 * size


def _parse(data: bytes) -> Contents:
    reader = _Reader(data)
    count = reader.integer()
    if not 0 <= count <= len(data):
        raise BackupCorrupt("the archive has an impossible number of entries")
    entries = [_entry(reader) for _ in range(count)]
    return Contents(entries, data[: reader.at])


def _entry(reader: "_Reader") -> Entry:
    number = reader.integer()
    reader.integer()  # whether it has data
    reader.text()  # the catalog it is from
    reader.text()  # its OID
    name, kind, section = reader.text(), reader.text(), reader.integer()
    definition = reader.text()
    reader.text()  # how to drop it
    reader.text()  # how to copy it
    schema = reader.text()
    reader.text()  # tablespace
    reader.text()  # access method
    if reader.version >= _HAS_RELKIND:
        reader.integer()
    owner = reader.text()
    reader.text()  # formerly: WITH OIDS
    needs = frozenset(map(int, iter(reader.text_or_none, None)))
    reader.skip(1 + reader.offset_bytes)  # where its data are
    return Entry(number, kind, name, schema, owner, section, definition, needs)


class _Reader:
    """The bytes of a head, from after its own fields on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0
        if self._bytes(len(_MAGIC)) != _MAGIC:
            raise BackupCorrupt("what the object holds is no archive of pg_dump")
        major, minor, _, self._integer_bytes, self.offset_bytes, form = self._bytes(6)
        self.version = (major, minor)
        if not _OLDEST <= self.version <= _NEWEST or form != _CUSTOM:
            raise BackupCorrupt(
                f"the archive has version {major}.{minor} and format {form}; this release reads "
                f"the custom format (1) of versions 1.14 to 1.16"
            )
        if self.version >= _COMPRESSION_IS_A_BYTE:
            self.skip(1)
        else:
            self.integer()
        for _ in range(_DATE_PARTS):
            self.integer()
        for _ in ("database", "version of the server", "version of pg_dump"):
            self.text()

    def integer(self) -> int:
        sign, *digits = self._bytes(1 + self._integer_bytes)
        value = int.from_bytes(digits, "little")
        return -value if sign else value

    def text(self) -> str:
        return self.text_or_none() or ""

    def text_or_none(self) -> str | None:
        size = self.integer()
        return None if size < 0 else self._bytes(size).decode(errors="replace")

    def skip(self, size: int) -> None:
        self._bytes(size)

    def _bytes(self, size: int) -> bytes:
        found = self._data[self.at : self.at + size]
        if len(found) < size:
            raise _CutShort
        self.at += size
        return found
