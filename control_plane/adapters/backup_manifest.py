"""The manifest as it is stored: a head that anybody can read, and the rest encrypted.

The head tells which tenant's key, and which version of it, opens the rest; it is authenticated
with it. docs/backup-format.md has the bytes.
"""

import hmac
import os
import struct
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from control_plane.adapters.backup_format import KEY_BYTES, NONCE_BYTES, derive
from control_plane.domain.backups import FORMAT, Manifest
from control_plane.domain.errors import BackupCorrupt

MAGIC = b"TNBM"
ENVELOPE = 1
AES_256_GCM_OF_JSON = 1

# magic, format, algorithm, backup, tenant, version of the tenant's key, commitment, nonce.
_HEAD = struct.Struct(f">4sBB16s16sI{KEY_BYTES}s{NONCE_BYTES}s")


class ManifestHead(msgspec.Struct, frozen=True):
    """Whose manifest it is, and the version of the tenant's key that opens it."""

    backup_id: UUID
    tenant_id: UUID
    key_version: int


def seal_manifest(manifest: Manifest, key: bytes) -> bytes:
    """The stored form of a manifest, under version ``manifest.key_version`` of the tenant's key."""
    secret = _key(key, manifest.backup_id)
    nonce = os.urandom(NONCE_BYTES)
    head = _HEAD.pack(
        MAGIC,
        ENVELOPE,
        AES_256_GCM_OF_JSON,
        manifest.backup_id.bytes,
        manifest.tenant_id.bytes,
        manifest.key_version,
        derive(secret, b"commit"),
        nonce,
    )
    body = msgspec.json.encode(manifest, order="sorted")
    return head + AESGCM(derive(secret, b"payload")).encrypt(nonce, body, head)


def peek(data: bytes) -> ManifestHead:
    """Whose manifest this claims to be; ``open_manifest`` proves it.

    Raises:
        BackupCorrupt: it is no manifest, or one that this release does not know.
    """
    return _parse(data)[0]


def open_manifest(data: bytes, *, backup_id: UUID, tenant_id: UUID, key: bytes) -> Manifest:
    """The manifest of exactly this backup of this tenant.

    Raises:
        BackupCorrupt: it is damaged, of another backup or tenant, of a newer release, or ``key``
            is not the key it was sealed with.
    """
    head, commitment, nonce = _parse(data)
    if head.backup_id != backup_id or head.tenant_id != tenant_id:
        raise BackupCorrupt("the manifest is of another backup or another tenant")
    secret = _key(key, backup_id)
    if not hmac.compare_digest(derive(secret, b"commit"), commitment):
        raise BackupCorrupt(
            f"version {head.key_version} of the tenant's key does not open the manifest: it is "
            "another key, or the manifest is damaged"
        )
    cipher = AESGCM(derive(secret, b"payload"))
    try:
        plain = cipher.decrypt(nonce, data[_HEAD.size :], data[: _HEAD.size])
    except InvalidTag as error:
        raise BackupCorrupt("the manifest is damaged") from error
    return _decode(plain, head)


def _decode(plain: bytes, head: ManifestHead) -> Manifest:
    try:
        manifest = msgspec.json.decode(plain, type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupCorrupt(f"this release cannot read the manifest: {error}") from error
    if manifest.format != FORMAT:
        raise BackupCorrupt(
            f"the manifest has format {manifest.format}; this release knows format {FORMAT}"
        )
    if ManifestHead(manifest.backup_id, manifest.tenant_id, manifest.key_version) != head:
        raise BackupCorrupt("the manifest speaks of another backup than its head")
    return manifest


def _parse(data: bytes) -> tuple[ManifestHead, bytes, bytes]:
    if len(data) < _HEAD.size:
        raise BackupCorrupt("the manifest is cut short within its head")
    magic, envelope, algorithm, backup, tenant, version, commitment, nonce = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise BackupCorrupt("the object is not a manifest of a backup")
    if (envelope, algorithm) != (ENVELOPE, AES_256_GCM_OF_JSON):
        raise BackupCorrupt(
            f"the manifest is sealed in form {envelope} with algorithm {algorithm}; this release "
            f"knows form {ENVELOPE} with algorithm {AES_256_GCM_OF_JSON}"
        )
    return ManifestHead(UUID(bytes=backup), UUID(bytes=tenant), version), commitment, nonce


def _key(key: bytes, backup_id: UUID) -> bytes:
    return derive(key, b"backup|manifest", backup_id.bytes)
