"""Sealing secrets: a local keyring with epochs, AES-256-GCM, bound to their context (S-20).

The keyring is a file of its own, mode 0600, apart from the catalog: a dump of the catalog alone
opens nothing. Every sealed value carries the epoch it was sealed under, so that an old epoch
can stay for reading while a new one seals.
"""

import base64
import os
import stat
from pathlib import Path
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.adapters import clock
from control_plane.domain.errors import KeyUnavailable

_FORMAT = 1
_NONCE_BYTES = 12
_KEY_BYTES = 32


class _Epoch(msgspec.Struct):
    key: str
    created: str
    state: str


class _File(msgspec.Struct):
    epochs: dict[str, _Epoch]


class Keyring:
    """Seals and opens small secrets under the active epoch of a key file."""

    def __init__(self, epochs: dict[int, bytes], active: int) -> None:
        self._epochs = epochs
        self._active = active

    @classmethod
    def load(cls, path: Path) -> "Keyring":
        """Read the key file.

        Raises:
            KeyUnavailable: it is missing, malformed, a symbolic link, or others may read it.
        """
        _refuse_unsafe(path)
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_File)
            epochs = {int(n): base64.b64decode(e.key) for n, e in content.epochs.items()}
            active = max(int(n) for n, e in content.epochs.items() if e.state == "active")
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise KeyUnavailable(f"the key file {path} cannot be read: {error}") from error
        return cls(epochs, active)

    @staticmethod
    def create(path: Path) -> None:
        """Make a key file with one epoch; an existing one is never touched.

        Raises:
            KeyUnavailable: the file exists, or cannot be written.
        """
        key = base64.b64encode(AESGCM.generate_key(bit_length=256)).decode()
        epoch = _Epoch(key=key, created=clock.now().isoformat(), state="active")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise KeyUnavailable(f"cannot create the key file {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(_File({"1": epoch})))
            file.flush()
            os.fsync(file.fileno())

    def seal(self, secret: str, *, owner: UUID, purpose: str, version: int) -> bytes:
        """Ciphertext of ``secret`` that opens only for this owner, purpose and version."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._cipher(self._active, owner, purpose)
        header = bytes([_FORMAT]) + self._active.to_bytes(4, "big")
        body = cipher.encrypt(nonce, secret.encode(), _context(header, owner, purpose, version))
        return header + nonce + body

    def open(self, sealed: bytes, *, owner: UUID, purpose: str, version: int) -> str:
        """The secret inside ``sealed``.

        Raises:
            KeyUnavailable: another context, another keyring, or damaged ciphertext.
        """
        header, nonce = sealed[:5], sealed[5 : 5 + _NONCE_BYTES]
        epoch = int.from_bytes(header[1:], "big")
        if len(sealed) <= 5 + _NONCE_BYTES or header[0] != _FORMAT or epoch not in self._epochs:
            raise KeyUnavailable(f"no key of this keyring opens the {purpose} secret")
        try:
            plain = self._cipher(epoch, owner, purpose).decrypt(
                nonce, sealed[5 + _NONCE_BYTES :], _context(header, owner, purpose, version)
            )
        except InvalidTag as error:
            raise KeyUnavailable(f"the {purpose} secret does not open in this context") from error
        return plain.decode()

    def _cipher(self, epoch: int, owner: UUID, purpose: str) -> AESGCM:
        key = HKDF(hashes.SHA256(), _KEY_BYTES, salt=owner.bytes, info=purpose.encode())
        return AESGCM(key.derive(self._epochs[epoch]))


def _context(header: bytes, owner: UUID, purpose: str, version: int) -> bytes:
    return b"|".join((header, owner.bytes, purpose.encode(), str(version).encode()))


def _refuse_unsafe(path: Path) -> None:
    try:
        facts = path.lstat()
    except OSError as error:
        raise KeyUnavailable(
            f"the key file {path} is not there; make one with: tenantry admin init-keyring"
        ) from error
    if stat.S_ISLNK(facts.st_mode):
        raise KeyUnavailable(f"the key file {path} is a symbolic link; name the file itself")
    if facts.st_mode & 0o077:
        raise KeyUnavailable(f"others may read the key file {path}; run: chmod 600 {path}")
