"""What a backup is: its manifest, the content it stands for, and how two contents differ."""

import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Literal
from uuid import UUID

import msgspec

BackupState = Literal["running", "complete", "failed", "corrupt", "pruned"]
BackupCause = Literal["manual", "schedule", "archive", "final"]
DrillCause = Literal["manual", "rotation", "archive", "restore", "unarchive"]

FORMAT = 1
# Where things are in a store. A tenant's id, never its slug: names of clinics stay out of keys.
BACKUPS_PREFIX = "backups/"
EXPORTS_PREFIX = "exports/"
KEYS_PREFIX = "keystore/"
# The name of the object that makes a backup of what is in its folder.
MANIFEST = "manifest"


class TableContent(msgspec.Struct, frozen=True):
    """What one table holds. ``digest`` does not depend on the order of rows.

    It is the sum of 64-bit hashes of all rows, in decimal; ``rows`` is their number.
    """

    rows: int
    digest: str


class SequenceContent(msgspec.Struct, frozen=True):
    """Where a sequence stands. Sequences know no snapshot: this was read before the dump was."""

    last_value: int
    is_called: bool
    ascending: bool = True

    def reaches(self, wanted: "SequenceContent") -> bool:
        """Whether no number that ``wanted`` had given out will be given out again."""
        if self.last_value == wanted.last_value:
            return self.is_called >= wanted.is_called
        return (self.last_value > wanted.last_value) == wanted.ascending


class Content(msgspec.Struct, frozen=True):
    """Everything a tenant's database holds at one instant; keys are ``schema.name``, quoted.

    ``large_objects`` counts and digests the bytes of all large objects.
    """

    tables: dict[str, TableContent]
    sequences: dict[str, SequenceContent]
    large_objects: TableContent

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all rows and large objects: what the ledger of drills shows."""
        rows = (self.tables, self.large_objects)
        return hashlib.sha256(msgspec.json.encode(rows, order="sorted")).hexdigest()


class Extension(msgspec.Struct, frozen=True):
    """An extension the database uses, and the schema its objects are in."""

    name: str
    version: str
    schema: str


class Locale(msgspec.Struct, frozen=True):
    """How the database encodes and sorts text; ``provider`` is ``c``, ``i`` or ``b``.

    ``version`` is the collation version of the library that sorted its indexes.
    """

    encoding: str
    collate: str
    ctype: str
    provider: str
    icu_locale: str | None = None
    version: str | None = None


class BackedUpCredential(msgspec.Struct, frozen=True):
    """A login's secret as the catalog holds it, so that a lost catalog can be built again."""

    slot: str
    version: int
    state: str
    verifier: str
    sealed: bytes


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a backup; stored encrypted beside it, and written after it.

    ``object_sha256`` is of the stored object, ``plain_bytes`` the length of the archive that
    ``pg_dump`` wrote. ``roles_key`` is the id all role names in the archive are derived from.
    """

    format: int = FORMAT
    backup_id: UUID
    tenant_id: UUID
    roles_key: UUID
    key_version: int
    object_key: str
    stored_bytes: int
    object_sha256: bytes
    plain_bytes: int
    slug: str
    name: str
    tier: str
    region: str | None
    labels: dict[str, str]
    template: str
    template_fingerprint: str
    schema_revision: str
    schema_fingerprint: str
    generation: int
    server_name: str
    server_version: int
    system_identifier: int
    dump_program: str
    database_bytes: int
    locale: Locale
    extensions: list[Extension]
    snapshot_at: dt.datetime
    cause: BackupCause
    content: Content
    credentials: list[BackedUpCredential]


def object_key(tenant_id: UUID, backup_id: UUID, epoch: int) -> str:
    """Where the data of a backup goes; another attempt writes another object."""
    return f"{folder(tenant_id, backup_id)}data.{epoch}"


def manifest_key(tenant_id: UUID, backup_id: UUID) -> str:
    """Where the manifest of a backup goes."""
    return f"{folder(tenant_id, backup_id)}{MANIFEST}"


def folder(tenant_id: UUID, backup_id: UUID) -> str:
    """What the keys of all objects of a backup begin with."""
    return f"{BACKUPS_PREFIX}{tenant_id.hex}/{backup_id.hex}/"


def export_folder(tenant_id: UUID, export_id: UUID) -> str:
    """What the keys of all objects of an export begin with."""
    return f"{EXPORTS_PREFIX}{tenant_id.hex}/{export_id.hex}/"


def export_key(tenant_id: UUID, export_id: UUID, epoch: int) -> str:
    """Where the bundle of an export goes; another attempt writes another object."""
    return f"{export_folder(tenant_id, export_id)}bundle.{epoch}.zip.age"


def tenant_folders(tenant_id: UUID) -> tuple[str, str]:
    """What the keys of everything that is stored of a tenant begin with, but for its keys."""
    return f"{BACKUPS_PREFIX}{tenant_id.hex}/", f"{EXPORTS_PREFIX}{tenant_id.hex}/"


def differences(wanted: Content, found: Content) -> list[str]:
    """Each way in which ``found`` is not ``wanted``, one sentence each; never a value."""
    return [
        *_table_differences(wanted, found),
        *_sequence_differences(wanted, found),
        *_differ("large objects", wanted.large_objects, found.large_objects),
    ]


def _table_differences(wanted: Content, found: Content) -> Iterator[str]:
    for name in sorted(wanted.tables.keys() - found.tables.keys()):
        yield f"table {name} is missing"
    for name in sorted(found.tables.keys() - wanted.tables.keys()):
        yield f"table {name} should not be there"
    for name in sorted(wanted.tables.keys() & found.tables.keys()):
        yield from _differ(f"table {name}", wanted.tables[name], found.tables[name])


def _sequence_differences(wanted: Content, found: Content) -> Iterator[str]:
    for name in sorted(wanted.sequences.keys() - found.sequences.keys()):
        yield f"sequence {name} is missing"
    for name in sorted(found.sequences.keys() - wanted.sequences.keys()):
        yield f"sequence {name} should not be there"
    for name in sorted(wanted.sequences.keys() & found.sequences.keys()):
        if not found.sequences[name].reaches(wanted.sequences[name]):
            yield f"sequence {name} would give out numbers again"


def _differ(what: str, wanted: TableContent, found: TableContent) -> Iterator[str]:
    if wanted.rows != found.rows:
        yield f"{what}: {found.rows} rows, not {wanted.rows}"
    elif wanted.digest != found.digest:
        yield f"{what}: {found.rows} rows as it should, but their content differs"
