"""Sealing fields and computing blind indexes with one tenant's keys.

A sealed value is ``format(1) | key version(4) | nonce(12) | ciphertext | tag(16)``, AES-256-GCM.
Its additional data are those first five bytes, the tenant, ``schema.table``, the column and the
primary key, with NUL between them: a value that was moved anywhere else does not open.
"""

import hmac
import os
from collections.abc import Mapping
from functools import cache
from typing import NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenant_template.client.errors import CannotDecrypt

BLIND_INDEX_BYTES = 16
_FORMAT = 1
_HEADER_BYTES = 5
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_BYTES = 32
_SHORTEST = _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES


class Vault:
    """The keys of one tenant, by version. It shows itself without them and cannot be pickled."""

    def __init__(self, tenant_id: UUID, keys: Mapping[int, bytes], active: int) -> None:
        """``keys`` are the application keys (32 bytes) that the control plane gave out.

        Raises:
            ValueError: a key has another length, or the active one is missing.
        """
        if active not in keys or any(len(key) != _KEY_BYTES for key in keys.values()):
            raise ValueError("a vault needs keys of 32 bytes and the active one among them")
        self.tenant_id = tenant_id
        self.active = active
        self.versions = tuple(sorted(keys, key=lambda version: (version != active, -version)))
        self._keys = dict(keys)
        self._ciphers = {version: AESGCM(self._derive(version, "field")) for version in keys}
        self._index_key = cache(self._derive)

    def seal(self, plain: bytes, *, table: str, column: str, row: object) -> bytes:
        """``plain`` under the active key, to be opened in this place only.

        ``table`` is ``schema.table``; ``row`` is the primary key, whose text is taken.
        """
        header = bytes([_FORMAT]) + self.active.to_bytes(4, "big")
        nonce = os.urandom(_NONCE_BYTES)
        context = self._context(header, table, column, row)
        return header + nonce + self._ciphers[self.active].encrypt(nonce, plain, context)

    def open(self, sealed: bytes, *, table: str, column: str, row: object) -> bytes:
        """What was sealed in this place.

        Raises:
            CannotDecrypt: an unknown key, damaged, or sealed for another place.
        """
        header = sealed[:_HEADER_BYTES]
        if not looks_sealed(sealed):
            raise CannotDecrypt(f"{table}.{column} of {row} does not hold a sealed value")
        version = int.from_bytes(header[1:], "big")
        if version not in self._ciphers:
            raise CannotDecrypt(
                f"{table}.{column} of {row} is under key {version}, which this process has not "
                "got; fetch the keys again"
            )
        body = sealed[_HEADER_BYTES:]
        context = self._context(header, table, column, row)
        try:
            return self._ciphers[version].decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], context)
        except InvalidTag as error:
            raise CannotDecrypt(
                f"{table}.{column} of {row} does not open here: damaged, or written for another "
                "tenant, table, column or row"
            ) from error

    def blind_index(self, column: str, normal: str) -> bytes:
        """16 bytes that stand for a normalised value; ``column`` is ``schema.table.column``."""
        return self._blind_index(column, normal, self.active)

    def blind_indexes(self, column: str, normal: str) -> list[bytes]:
        """The blind index under every key, the active one first: rows may have any of them."""
        return [self._blind_index(column, normal, version) for version in self.versions]

    def _blind_index(self, column: str, normal: str, version: int) -> bytes:
        key = self._index_key(version, f"bidx|{column}")
        return hmac.digest(key, normal.encode(), "sha256")[:BLIND_INDEX_BYTES]

    def _derive(self, version: int, purpose: str) -> bytes:
        info = f"{purpose}|{version}".encode()
        key = HKDF(hashes.SHA256(), _KEY_BYTES, salt=self.tenant_id.bytes, info=info)
        return key.derive(self._keys[version])

    def _context(self, header: bytes, table: str, column: str, row: object) -> bytes:
        place = (str(self.tenant_id), table, column, str(row))
        return header + "\0".join(place).encode()

    def __repr__(self) -> str:
        return f"<Vault of {self.tenant_id}, keys {self.versions}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault holds keys and is not pickled or copied")


def looks_sealed(value: bytes) -> bool:
    """Whether ``value`` has the form of a sealed one; only ``Vault.open`` knows if it is."""
    return len(value) >= _SHORTEST and value[0] == _FORMAT
