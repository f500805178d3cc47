"""Sealing secrets with the local root keys: AES-256-GCM, bound to their context (S-20).

The keys are in a file of their own, apart from the catalog: a dump of the catalog alone opens
nothing. Every sealed value carries the epoch it was sealed under, so that an old epoch can stay
for reading while a new one seals. A changed file is read again at the next use.
"""

import os
import threading
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.adapters import key_file
from control_plane.adapters.key_file import KEY_BYTES
from control_plane.domain.errors import KeyUnavailable

_log = structlog.get_logger(__name__)
_FORMAT = 1
_NONCE_BYTES = 12
_HEADER_BYTES = 5  # the format, and the epoch in four bytes

_Signature = tuple[int, int, int] | None


class _Keys(NamedTuple):
    epochs: dict[int, bytes]
    active: int


class Keyring:
    """Seals and opens small secrets under the epochs of a key file."""

    def __init__(self, epochs: dict[int, bytes], active: int, path: Path | None = None) -> None:
        self._keys = _Keys(epochs, active)
        self._path = path
        self._seen = _signature(path) if path else None
        self._reading = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> "Keyring":
        """Read the key file.

        Raises:
            KeyUnavailable: it is missing, malformed, a symbolic link, or others may read it.
        """
        seen = _signature(path)
        keyring = cls(*_read(path), path)
        keyring._seen = seen  # a change after this look is found by the next use
        return keyring

    @staticmethod
    def create(path: Path) -> None:
        """Make a key file with one epoch; an existing one is never touched.

        Raises:
            KeyUnavailable: the file exists, or cannot be written.
        """
        key_file.create(path, key_file.new())

    @property
    def active(self) -> int:
        """The epoch that seals."""
        return self._current().active

    def seal(self, secret: str, *, owner: UUID, purpose: str, version: int) -> bytes:
        """Ciphertext of ``secret`` that opens only for this owner, purpose and version."""
        keys = self._current()
        nonce = os.urandom(_NONCE_BYTES)
        header = bytes([_FORMAT]) + keys.active.to_bytes(4, "big")
        cipher = _cipher(keys.epochs[keys.active], owner, purpose)
        body = cipher.encrypt(nonce, secret.encode(), _context(header, owner, purpose, version))
        return header + nonce + body

    def open(self, sealed: bytes, *, owner: UUID, purpose: str, version: int) -> str:
        """The secret inside ``sealed``.

        Raises:
            KeyUnavailable: another context, another keyring, or damaged ciphertext.
        """
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:][:_NONCE_BYTES]
        key = self._current().epochs.get(epoch_of(sealed))
        if len(sealed) <= _HEADER_BYTES + _NONCE_BYTES or header[0] != _FORMAT or key is None:
            raise KeyUnavailable(f"no key of this keyring opens the {purpose} secret")
        try:
            plain = _cipher(key, owner, purpose).decrypt(
                nonce,
                sealed[_HEADER_BYTES + _NONCE_BYTES :],
                _context(header, owner, purpose, version),
            )
        except InvalidTag as error:
            raise KeyUnavailable(f"the {purpose} secret does not open in this context") from error
        return plain.decode()

    def _current(self) -> _Keys:
        """The keys of the file as it is now.

        A file that has become unusable stops nobody who has its keys already; who starts does
        not get that far.
        """
        if self._path is not None and _signature(self._path) != self._seen:
            with self._reading:
                self._read_anew(self._path)
        return self._keys

    def _read_anew(self, path: Path) -> None:
        seen = _signature(path)
        if seen == self._seen:
            return
        try:
            self._keys = _read(path)
        except KeyUnavailable as error:
            _log.error("key_file_unusable", error=error.message)
        # Last: a thread that finds the file as it was seen takes the keys without waiting.
        self._seen = seen


def epoch_of(sealed: bytes) -> int:
    """The epoch a value says it was sealed under."""
    return int.from_bytes(sealed[1:_HEADER_BYTES], "big")


def _read(path: Path) -> _Keys:
    content = key_file.read(path)
    return _Keys(content.keys(), content.active)


def _signature(path: Path) -> _Signature:
    """Differs after every change of the file, which is always replaced as a whole."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _cipher(key: bytes, owner: UUID, purpose: str) -> AESGCM:
    derive = HKDF(hashes.SHA256(), KEY_BYTES, salt=owner.bytes, info=purpose.encode())
    return AESGCM(derive.derive(key))


def _context(header: bytes, owner: UUID, purpose: str, version: int) -> bytes:
    return b"|".join((header, owner.bytes, purpose.encode(), str(version).encode()))
