"""A stored backup, read: fetched still encrypted, proven whole, and only then decrypted.

Nothing plain is ever written by this module. All calls block: run them in a thread.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from uuid import UUID

import zstandard

from control_plane.adapters.backup_format import HEADER_BYTES, open_stream, parse_header
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.domain.errors import BackupCorrupt, DiskFull, ObjectMissing, StoreUnavailable

_PIECE_BYTES = 1024 * 1024
# A stream that wants a larger window was not written by us; it is refused, not given memory.
_WINDOW_BYTES = 2**27


class Archive(Protocol):
    """What a manifest says of the object: of a tenant's backup, or of the catalog's."""

    @property
    def backup_id(self) -> UUID: ...

    @property
    def tenant_id(self) -> UUID: ...

    @property
    def key_version(self) -> int: ...

    @property
    def object_key(self) -> str: ...

    @property
    def stored_bytes(self) -> int: ...

    @property
    def object_sha256(self) -> bytes: ...

    @property
    def plain_bytes(self) -> int: ...


def fetch(
    store: ObjectStore,
    manifest: Archive,
    key: bytes,
    spool: Path,
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Put the object at ``spool``, still encrypted, once every byte of it is proven.

    A spool that is there already is used again if it is the object. ``progress`` hears the
    bytes that have come so far. ``stop`` ends the transfer.

    Raises:
        ObjectMissing: the object is not in the store.
        BackupCorrupt: it is not what the manifest says, or a chunk of it does not authenticate.
        StoreUnavailable: the store failed, or ``stop`` was set.
        DiskFull: the object does not fit where ``spool`` is.
    """
    if _is_object(spool, manifest):
        return
    require_stored(store, manifest)
    coming = spool.with_name(spool.name + ".part")
    with suppress(FileNotFoundError):
        coming.unlink()
    try:
        with _private_file(coming) as file:
            pieces = _watched(store.read(manifest.object_key, manifest.stored_bytes), stop)
            _prove(_kept(pieces, file, progress), manifest, key)
        coming.replace(spool)
    finally:
        with suppress(FileNotFoundError):
            coming.unlink()


def plain(spool: Path, manifest: Archive, key: bytes) -> Iterator[bytes]:
    """The archive that ``pg_dump`` wrote, in pieces of at most 1 MiB, from a fetched object.

    Each piece is authenticated. The length and the hash of the whole are known at the end: who
    reads must take an error there as seriously as one at the beginning.

    Raises:
        BackupCorrupt: the spool is not the object, or it does not hold the archive.
    """
    with spool.open("rb", buffering=0) as file:
        yield from _unpacked(_pieces(file), manifest, key)


def stored_plain(store: ObjectStore, manifest: Archive, key: bytes) -> Iterator[bytes]:
    """The same, straight from the store.

    Raises:
        BackupCorrupt: see ``plain``.
        StoreUnavailable: the store failed.
    """
    yield from _unpacked(store.read(manifest.object_key, manifest.stored_bytes), manifest, key)


def check_stored(store: ObjectStore, manifest: Archive, key: bytes) -> None:
    """Look that the object is in the store, whole, and opens with this key; nothing is kept.

    It is read from end to end: that is the only way to the last chunk.

    Raises:
        ObjectMissing: the object is not in the store.
        BackupCorrupt: it is not what the manifest says, or a chunk of it does not authenticate.
        StoreUnavailable: the store failed.
    """
    require_stored(store, manifest)
    _prove(store.read(manifest.object_key, manifest.stored_bytes), manifest, key)


class _Source:
    """Chunks as a file, for the decompressor: one chunk for each call of ``read``.

    A chunk and what is asked for have the same size, so that nothing is copied.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, size: int) -> bytes:
        del size
        return next(self._chunks, b"")


def _unpacked(pieces: Iterator[bytes], manifest: Archive, key: bytes) -> Iterator[bytes]:
    size = 0
    opened = _opened(pieces, manifest, key)
    source = cast("BinaryIO", _Source(opened))
    unpack = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    # One byte more than there should be is asked for, so that too many are noticed.
    with unpack.stream_reader(source, read_size=_PIECE_BYTES) as reader:
        while piece := _read(reader, min(_PIECE_BYTES, manifest.plain_bytes - size + 1)):
            size += len(piece)
            if size > manifest.plain_bytes:
                raise BackupCorrupt("the object holds more than the manifest says")
            yield piece
    for _ in opened:
        raise BackupCorrupt("the object goes on after the end of the archive")
    if size != manifest.plain_bytes:
        raise BackupCorrupt("the object does not hold the archive that the manifest describes")


def require_stored(store: ObjectStore, manifest: Archive) -> None:
    """Look that the object is in the store with its length; nothing is read.

    Raises:
        ObjectMissing: it is not there.
        BackupCorrupt: it has another length.
        StoreUnavailable: the store failed.
    """
    found = store.head(manifest.object_key)
    if found is None:
        raise ObjectMissing(f"the object {manifest.object_key} is not in the store {store.url}")
    if found.size != manifest.stored_bytes:
        raise BackupCorrupt(
            f"the stored object has {found.size} bytes; the manifest says {manifest.stored_bytes}"
        )


def _prove(pieces: Iterator[bytes], manifest: Archive, key: bytes) -> None:
    """Read to the end, authenticating every chunk, and compare length and hash."""
    digest = hashlib.sha256()
    size = 0

    def hashed() -> Iterator[bytes]:
        nonlocal size
        for piece in pieces:
            size += len(piece)
            digest.update(piece)
            yield piece

    for _ in _opened(hashed(), manifest, key):
        pass
    if size != manifest.stored_bytes or digest.digest() != manifest.object_sha256:
        raise BackupCorrupt("the stored object is not the one that the manifest describes")


def _opened(pieces: Iterator[bytes], manifest: Archive, key: bytes) -> Iterator[bytes]:
    return open_stream(
        _of_version(pieces, manifest.key_version),
        backup_id=manifest.backup_id,
        tenant_id=manifest.tenant_id,
        key=key,
    )


def _of_version(pieces: Iterator[bytes], version: int) -> Iterator[bytes]:
    """The same bytes, if their header names this version of the tenant's key."""
    head = bytearray()
    for piece in pieces:
        head += piece
        if len(head) >= HEADER_BYTES:
            break
    found = parse_header(bytes(head)).key_version
    if found != version:
        raise BackupCorrupt(
            f"the object is sealed with version {found} of the tenant's key; "
            f"the manifest says {version}"
        )
    yield bytes(head)
    yield from pieces


def _read(reader: zstandard.ZstdDecompressionReader, most: int) -> bytes:
    try:
        return reader.read(most)
    except zstandard.ZstdError as error:
        raise BackupCorrupt(f"the archive in the object cannot be unpacked: {error}") from error


def _is_object(spool: Path, manifest: Archive) -> bool:
    try:
        with spool.open("rb") as file:
            if os.fstat(file.fileno()).st_size != manifest.stored_bytes:
                return False
            return hashlib.file_digest(file, "sha256").digest() == manifest.object_sha256
    except FileNotFoundError:
        return False


def _private_file(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _watched(pieces: Iterator[bytes], stop: threading.Event | None) -> Iterator[bytes]:
    for piece in pieces:
        if stop is not None and stop.is_set():
            raise StoreUnavailable("the transfer was stopped")
        yield piece


def _kept(
    pieces: Iterator[bytes], file: BinaryIO, progress: Callable[[int], None] | None
) -> Iterator[bytes]:
    """The same bytes, once they are in the file."""
    size = 0
    for piece in pieces:
        _write(file, piece)
        size += len(piece)
        if progress is not None:
            progress(size)
        yield piece


def _write(file: BinaryIO, piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the directory of {file.name} has no room for the object") from error
        raise
