"""The form of a stored backup: a header, then chunks that are encrypted and authenticated.

docs/backup-format.md describes it byte by byte. Each chunk's place, the header, and whether the
chunk is the last one are part of what is authenticated, so that nothing can be cut off, moved or
taken from another backup (security: STREAM). GCM alone is not key-committing: an object could be
made that opens under two keys. The commitment in the header closes that.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator
from itertools import chain
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.domain.errors import BackupCorrupt

MAGIC = b"TNBK"
FORMAT = 1
AES_256_GCM_OF_ZSTD = 1
CHUNK_BYTES = 1024 * 1024
KEY_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12
_PREFIX_BYTES = 7
_FRAME_BYTES = CHUNK_BYTES + TAG_BYTES
_MOST_CHUNKS = 2**32

# magic, format, algorithm, backup, tenant, version of the tenant's key: what a header is about.
_IDS = struct.Struct(">4sBB16s16sI")
# nonce of the wrapped key, wrapped key, commitment, prefix of the chunks' nonces.
_KEYS = struct.Struct(f">{NONCE_BYTES}s{KEY_BYTES + TAG_BYTES}s{KEY_BYTES}s{_PREFIX_BYTES}s")
HEADER_BYTES = _IDS.size + _KEYS.size

_Bytes = bytes | bytearray | memoryview


class Header(msgspec.Struct, frozen=True):
    """What the head of an object says; true only once the object has been opened with a key."""

    backup_id: UUID
    tenant_id: UUID
    key_version: int
    ids: bytes
    wrap_nonce: bytes
    wrapped_key: bytes
    commitment: bytes
    nonce_prefix: bytes


def derive(key: bytes, purpose: bytes, context: bytes = b"") -> bytes:
    """A key of its own for one purpose."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=purpose + b"|" + context).derive(key)


class Sealer:
    """Encrypts one backup object piece by piece, under a fresh key that ``key`` wraps.

    ``header`` goes first; it counts in ``stored_bytes`` and ``sha256``.
    """

    def __init__(self, *, backup_id: UUID, tenant_id: UUID, key_version: int, key: bytes) -> None:
        ids = _IDS.pack(
            MAGIC, FORMAT, AES_256_GCM_OF_ZSTD, backup_id.bytes, tenant_id.bytes, key_version
        )
        secret = os.urandom(KEY_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        self._prefix = os.urandom(_PREFIX_BYTES)
        self.header = ids + _KEYS.pack(
            nonce,
            _wrapping(key, backup_id).encrypt(nonce, secret, ids),
            derive(secret, b"commit"),
            self._prefix,
        )
        self.stored_bytes = len(self.header)
        self._cipher = AESGCM(derive(secret, b"payload"))
        self._header_hash = hashlib.sha256(self.header).digest()
        self._hash = hashlib.sha256(self.header)
        self._held = bytearray()
        self._index = 0

    def update(self, data: bytes) -> bytes:
        """What is complete by now. A full chunk waits until it is known not to be the last."""
        sealed = [self._seal(chunk, last=False) for chunk in _whole(self._held, data, CHUNK_BYTES)]
        return sealed[0] if len(sealed) == 1 else b"".join(sealed)

    def finish(self) -> bytes:
        """The last chunk; it is always there, and empty only if there was no data at all."""
        return self._seal(self._held, last=True)

    @property
    def sha256(self) -> bytes:
        """Of the header and everything that ``update`` and ``finish`` have returned."""
        return self._hash.digest()

    def _seal(self, chunk: _Bytes, *, last: bool) -> bytes:
        nonce, bound = _place(self._prefix, self._header_hash, self._index, last=last)
        sealed = self._cipher.encrypt(nonce, chunk, bound)
        self._index += 1
        self.stored_bytes += len(sealed)
        self._hash.update(sealed)
        return sealed


def parse_header(data: bytes) -> Header:
    """The parts of a header, none of them proven yet.

    Raises:
        BackupCorrupt: it is not the head of a backup, or of a format that this release knows.
    """
    if len(data) < HEADER_BYTES:
        raise BackupCorrupt("the object is cut short within its header")
    magic, version, algorithm, backup_id, tenant_id, key_version = _IDS.unpack_from(data)
    if magic != MAGIC:
        raise BackupCorrupt("the object is not a backup")
    if (version, algorithm) != (FORMAT, AES_256_GCM_OF_ZSTD):
        raise BackupCorrupt(
            f"the object has format {version} with algorithm {algorithm}; this release knows "
            f"format {FORMAT} with algorithm {AES_256_GCM_OF_ZSTD}"
        )
    return Header(
        UUID(bytes=backup_id),
        UUID(bytes=tenant_id),
        key_version,
        data[: _IDS.size],
        *_KEYS.unpack_from(data, _IDS.size),
    )


def open_stream(
    chunks: Iterator[bytes], *, backup_id: UUID, tenant_id: UUID, key: bytes
) -> Iterator[bytes]:
    """The bytes that were sealed, each piece authenticated before it is yielded.

    Whether the object is whole is known at its end only: what was yielded before is a true
    beginning. Whoever must not see a part of a cut object reads it through twice.

    Raises:
        BackupCorrupt: it is damaged, cut, longer than it was, reordered, of another backup or
            tenant, or ``key`` is not the key it was sealed with.
    """
    raw, rest = _split(chunks, HEADER_BYTES)
    header = parse_header(raw)
    if header.backup_id != backup_id or header.tenant_id != tenant_id:
        raise BackupCorrupt("the object is of another backup or another tenant")
    cipher = AESGCM(derive(_unwrap(header, key), b"payload"))
    header_hash = hashlib.sha256(raw).digest()
    for index, (frame, last) in enumerate(_frames(rest)):
        nonce, bound = _place(header.nonce_prefix, header_hash, index, last=last)
        try:
            plain = cipher.decrypt(nonce, frame, bound)
        except InvalidTag as error:
            where = "its end or in its last chunk" if last else f"chunk {index}"
            raise BackupCorrupt(f"the object is damaged or cut short at {where}") from error
        yield plain


def _unwrap(header: Header, key: bytes) -> bytes:
    try:
        secret = _wrapping(key, header.backup_id).decrypt(
            header.wrap_nonce, header.wrapped_key, header.ids
        )
    except InvalidTag as error:
        raise BackupCorrupt(
            f"version {header.key_version} of the tenant's key does not open the backup: it is "
            "another key, or the header is damaged"
        ) from error
    if not hmac.compare_digest(derive(secret, b"commit"), header.commitment):
        raise BackupCorrupt("the header does not commit to the key of the backup")
    return secret


def _wrapping(key: bytes, backup_id: UUID) -> AESGCM:
    return AESGCM(derive(key, b"backup|data", backup_id.bytes))


def _place(prefix: bytes, header_hash: bytes, index: int, *, last: bool) -> tuple[bytes, bytes]:
    """The nonce of a chunk, and what it is bound to."""
    if index >= _MOST_CHUNKS:
        raise BackupCorrupt("the object has more chunks than a backup can have")
    counter = index.to_bytes(4, "big")
    return prefix + counter + bytes([last]), header_hash + counter


def _split(pieces: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first ``size`` bytes, or fewer if there are no more, and all that follows."""
    head = bytearray()
    for piece in pieces:
        head += piece
        if len(head) >= size:
            break
    return bytes(head[:size]), chain((bytes(head[size:]),), pieces)


def _frames(pieces: Iterator[bytes]) -> Iterator[tuple[_Bytes, bool]]:
    held = bytearray()
    for piece in pieces:
        for frame in _whole(held, piece, _FRAME_BYTES):
            yield frame, False
    yield held, True


def _whole(held: bytearray, piece: _Bytes, size: int) -> Iterator[_Bytes]:
    """Cut ``held`` and ``piece`` into blocks of ``size`` that at least one byte follows.

    The rest, one to ``size`` bytes if there were any, is in ``held`` afterwards. Only what
    crosses the border of a piece is copied.
    """
    view = memoryview(piece)
    if held:
        missing = size - len(held)
        held += view[:missing]
        view = view[missing:]
        if not view:
            return
        yield held
        held.clear()
    count = max(len(view) - 1, 0) // size
    for index in range(count):
        yield view[index * size : (index + 1) * size]
    held += view[count * size :]
