"""The manifest of a backup of the catalog as it is stored: sealed by the root key, nothing else.

Its head says which backup it is of; docs/backup-format.md has the bytes.
"""

import struct
from uuid import UUID

import msgspec

from control_plane.adapters.keyring import Keyring, epoch_of
from control_plane.domain.catalog_backups import FORMAT, CatalogManifest
from control_plane.domain.errors import BackupCorrupt

MAGIC = b"TNCM"
FORM = 1
_PURPOSE = "catalog_backup"
_VERSION = 1

# magic, form, backup.
_HEAD = struct.Struct(">4sB16s")


def seal_manifest(manifest: CatalogManifest, keyring: Keyring) -> bytes:
    """The stored form of a manifest, under the root key of today."""
    body = msgspec.json.encode(manifest, order="sorted").decode()
    sealed = keyring.seal(body, owner=manifest.backup_id, purpose=_PURPOSE, version=_VERSION)
    return _HEAD.pack(MAGIC, FORM, manifest.backup_id.bytes) + sealed


def sealed_under(data: bytes) -> int:
    """The epoch of the root key that sealed a manifest, which ``open_manifest`` has opened."""
    return epoch_of(data[_HEAD.size :])


def open_manifest(data: bytes, backup_id: UUID, keyring: Keyring) -> CatalogManifest:
    """The manifest of exactly this backup.

    Raises:
        BackupCorrupt: it is none, of another backup, or of a newer release.
        KeyUnavailable: it is damaged, or these are not the root keys that sealed it.
    """
    if len(data) < _HEAD.size:
        raise BackupCorrupt("the manifest is cut short within its head")
    magic, form, found = _HEAD.unpack_from(data)
    if (magic, form) != (MAGIC, FORM):
        raise BackupCorrupt("the object is not a manifest of the catalog that this release knows")
    if found != backup_id.bytes:
        raise BackupCorrupt("the manifest is of another backup of the catalog")
    body = keyring.open(data[_HEAD.size :], owner=backup_id, purpose=_PURPOSE, version=_VERSION)
    try:
        manifest = msgspec.json.decode(body, type=CatalogManifest)
    except msgspec.DecodeError as error:
        raise BackupCorrupt(f"this release cannot read the manifest: {error}") from error
    if manifest.format != FORMAT or manifest.backup_id != backup_id:
        raise BackupCorrupt("the manifest is of another backup, or of a newer release")
    return manifest
