"""Objects that are not what they should be: no byte of them reaches ``pg_restore``."""

import dataclasses
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from control_plane.adapters.backup_format import Sealer, open_stream
from control_plane.adapters.backup_object import stored_plain
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.pg_programs import Programs
from control_plane.domain.backups import Manifest, differences
from control_plane.domain.errors import BackupCorrupt, ObjectMissing
from tests.integration.backups.dumping import KEY
from tests.integration.restores.restoring import (
    Backup,
    back_up,
    drop,
    load_into,
    scratch_for,
)
from tests.integration.tenant_server.clinic import Place, provision

MADE = """
SELECT datname::text FROM pg_database WHERE datname = $1
UNION ALL SELECT rolname FROM pg_roles WHERE rolname = $2
"""

Damage = Callable[[bytes], bytes]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Damage] = {
    "flipped in the header": lambda data: flipped(data, 30),
    "flipped at the beginning": lambda data: flipped(data, 400),
    "flipped in the middle": lambda data: flipped(data, len(data) // 2),
    "flipped at the end": lambda data: flipped(data, len(data) - 1),
    "cut within the last chunk": lambda data: data[:-100],
    "cut to its header": lambda data: data[:200],
    "longer": lambda data: data + b"\0",
    "empty": lambda _: b"",
    "two chunks swapped": lambda data: data[:400] + data[800:1200] + data[400:800] + data[1200:],
}


class Witness:
    """The real ``pg_restore``, called by a script that leaves a mark when it is started."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.mark = folder / "started"
        self.program = folder / "pg_restore"
        real = Programs([place.server.bin]).restore(place.server.version)
        self.program.write_text(f'#!/bin/sh\ntouch {self.mark}\nexec {real} "$@"\n')
        self.program.chmod(0o755)


async def refuse(backup: Backup, place: Place, folder: Path, match: str | None = None) -> None:
    """Prove that the backup is refused before anything is started or made."""
    witness = Witness(place, folder)
    scratch = scratch_for(backup, place, folder, witness.program)
    with pytest.raises(BackupCorrupt, match=match):
        await load_into(scratch)
    assert not witness.mark.exists()
    assert not scratch.spool.exists()
    admin = await place.server.admin()
    assert await admin.fetch(MADE, scratch.database, scratch.loader) == []
    await admin.close()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
async def test_a_damaged_object_is_refused(
    places: dict[int, Place], store: FileStore, tmp_path: Path, damage: Damage
) -> None:
    place = places[15]
    backup = await back_up(await provision(place), store)
    name = backup.manifest.object_key
    store.put(name, damage(store.get(name)))
    await refuse(backup, place, tmp_path)


async def test_another_object_is_refused(
    places: dict[int, Place], store: FileStore, tmp_path: Path
) -> None:
    place = places[15]
    clinic, other = await provision(place), await provision(place)
    backup, younger = await back_up(clinic, store), await back_up(clinic, store)
    foreign = await back_up(other, store)
    for found in (younger, foreign):
        data = store.get(found.manifest.object_key)
        store.put(backup.manifest.object_key, data)
        # Even if the manifest had been made to fit.
        forged = msgspec.structs.replace(
            backup.manifest,
            stored_bytes=found.manifest.stored_bytes,
            object_sha256=found.manifest.object_sha256,
        )
        await refuse(Backup(forged, store), place, tmp_path, "another backup or another tenant")


async def test_another_key_is_refused(
    places: dict[int, Place], store: FileStore, tmp_path: Path
) -> None:
    place = places[15]
    backup = await back_up(await provision(place), store)
    other = Backup(backup.manifest, store, bytes(reversed(KEY)))
    await refuse(other, place, tmp_path, "does not open the backup")
    older = msgspec.structs.replace(backup.manifest, key_version=2)
    await refuse(Backup(older, store), place, tmp_path, "sealed with version 1")


async def test_a_missing_object_is_said(
    places: dict[int, Place], store: FileStore, tmp_path: Path
) -> None:
    place = places[15]
    backup = await back_up(await provision(place), store)
    store.delete([backup.manifest.object_key])
    with pytest.raises(ObjectMissing):
        await load_into(scratch_for(backup, place, tmp_path))


async def test_an_archive_that_is_wrong_at_its_end_is_not_loaded(
    places: dict[int, Place], sizeable: dict[int, Backup], tmp_path: Path
) -> None:
    """``pg_restore`` has no complaint: what it read was what ``pg_dump`` wrote."""
    place, backup = places[15], sizeable[15]
    witness = Witness(place, tmp_path)
    wrong = Backup(msgspec.structs.replace(backup.manifest, plain_bytes=10**9), backup.store)
    scratch = scratch_for(wrong, place, tmp_path, witness.program)
    heard: list[str] = []
    with pytest.raises(BackupCorrupt, match="does not hold the archive"):
        await load_into(scratch, heard.append)
    assert witness.mark.exists()
    # It came to light before indexes were made.
    assert {word.rpartition(" ")[2] for word in heard} == {"loaded"}
    assert await drop(scratch)
    # Nothing is left that the next restore would find.
    right = dataclasses.replace(scratch, backup=backup)
    await load_into(right)
    assert differences(backup.manifest.content, await right.content()) == []
    await drop(right)


@pytest.mark.parametrize("archive", [b"", b"PGDMP", b"-- a plain dump\n" * 100])
async def test_what_is_no_archive_is_not_loaded(
    places: dict[int, Place],
    sizeable: dict[int, Backup],
    store: FileStore,
    tmp_path: Path,
    archive: bytes,
) -> None:
    manifest = sizeable[15].manifest
    stored, facts = sealed(manifest, archive)
    store.put(manifest.object_key, stored)
    witness = Witness(places[15], tmp_path)
    wrong = Backup(msgspec.structs.replace(manifest, **facts), store)
    scratch = scratch_for(wrong, places[15], tmp_path, witness.program)
    with pytest.raises(BackupCorrupt, match="archive"):
        await load_into(scratch)
    assert not witness.mark.exists()
    await drop(scratch)


def test_what_unpacks_to_something_else_than_was_packed_is_noticed(
    sizeable: dict[int, Backup], store: FileStore
) -> None:
    manifest = sizeable[15].manifest
    archive = b"".join(stored_plain(sizeable[15].store, manifest, KEY))
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(archive)
    stored, facts = sealed(manifest, archive, packed[:-1] + bytes([packed[-1] ^ 1]))
    store.put(manifest.object_key, stored)
    wrong = msgspec.structs.replace(manifest, **facts)
    with pytest.raises(BackupCorrupt, match=r"cannot be unpacked: .*checksum"):
        deque(stored_plain(store, wrong, KEY), maxlen=0)


def test_every_backup_has_a_checksum_of_what_was_packed(sizeable: dict[int, Backup]) -> None:
    backup = sizeable[15]
    stored = b"".join(backup.store.read(backup.manifest.object_key, backup.manifest.stored_bytes))
    opened = open_stream(
        iter([stored]),
        backup_id=backup.manifest.backup_id,
        tenant_id=backup.manifest.tenant_id,
        key=KEY,
    )
    assert zstandard.get_frame_parameters(bytes(next(opened))).has_checksum


def sealed(
    manifest: Manifest, archive: bytes, packed: bytes | None = None
) -> tuple[bytes, dict[str, Any]]:
    """An object that is sound and holds ``archive``, and what the manifest says of it."""
    sealer = Sealer(
        backup_id=manifest.backup_id,
        tenant_id=manifest.tenant_id,
        key_version=manifest.key_version,
        key=KEY,
    )
    packed = packed or zstandard.ZstdCompressor().compress(archive)
    stored = sealer.header + sealer.update(packed) + sealer.finish()
    return stored, {
        "stored_bytes": len(stored),
        "object_sha256": sealer.sha256,
        "plain_bytes": len(archive),
    }
