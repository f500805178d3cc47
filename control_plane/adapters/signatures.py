"""Ed25519 signatures over documents, so that others can prove that we wrote them."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)


class Signer:
    """A private key that signs; its ``public_key`` are the 32 raw bytes others verify with."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def generate(cls) -> "Signer":
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def seed(self) -> bytes:
        """The private half, for sealing."""
        return self._key.private_bytes_raw()

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def verifies(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the owner of ``public_key`` signed exactly this message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON document that are signed: keys sorted, no white space, UTF-8."""
    return msgspec.json.encode(document, order="sorted")


def fingerprint(public_key: bytes) -> str:
    """What people compare: SHA-256 in hex of the raw public key."""
    return hashlib.sha256(public_key).hexdigest()


def pem(public_key: bytes) -> bytes:
    """The public key as OpenSSL reads it."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
