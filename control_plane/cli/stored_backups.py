"""``tenantry admin stored …``: backups straight from the store, with the root keys alone.

For the day on which the catalog and every server are lost. It asks no catalog and no API: what a
backup is, and which key opens it, is all in the store.
"""

import asyncio
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from control_plane.adapters import backup_manifest, backup_object
from control_plane.adapters.database_content import read_content
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.object_stores.opening import open_store
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.adapters.postgres_server import ServerAddress, Tls
from control_plane.bootstrap import make_keystore
from control_plane.cli.commands import Group
from control_plane.cli.output import print_json, print_line
from control_plane.cli.passwords import ask_password
from control_plane.cli.problems import Exit, Json, problem, say
from control_plane.cli.session import Session, pass_session
from control_plane.cli.tables import Column, print_table
from control_plane.config import KeySettings, Secret, SettingsError
from control_plane.domain.backups import BACKUPS_PREFIX, MANIFEST, Manifest, differences
from control_plane.domain.errors import NotFound, StoreUnavailable, TenantryError
from control_plane.domain.names import parse, show


class _Stored(msgspec.Struct, frozen=True):
    """A manifest in the store, opened, and the key that opened it."""

    manifest: Manifest
    key: bytes


@click.group(
    "stored",
    cls=Group,
    examples=(
        "tenantry admin stored list",
        "tenantry admin stored list --tenant acme",
        "tenantry admin stored extract bk_01k… --to acme.dump",
        "tenantry admin stored extract bk_01k… --to - | pg_restore --no-owner -d acme",
    ),
)
def stored_backups() -> None:
    """Backups straight from the store: no catalog, no API, only the root keys."""


@stored_backups.command("list")
@click.option("--tenant", help="Only those of this slug or tn_ id.")
@pass_session
def list_(session: Session, tenant: str | None) -> None:
    """List every backup in the store, the youngest data first."""
    with _told():
        store, keystore = _open()
        found = [
            each.manifest
            for each in _every(store, keystore)
            if tenant in (None, each.manifest.slug, show("tn", each.manifest.tenant_id))
        ]
    found.sort(key=lambda manifest: manifest.snapshot_at, reverse=True)
    columns = (
        Column("BACKUP", lambda b: b["id"]),
        Column("TENANT", lambda b: b["tenant"]),
        Column("DATA OF", lambda b: b["snapshot_at"]),
        Column("POSTGRES", lambda b: str(b["postgres"]), right=True),
        Column("ROWS", lambda b: str(b["rows"]), right=True),
        Column("ARCHIVE", lambda b: f"{b['plain_bytes'] / 1e6:.1f} MB", right=True),
    )
    print_table(session, [_facts(manifest) for manifest in found], columns, "no backup is stored")


@stored_backups.command("extract")
@click.argument("backup")
@click.option("--to", "path", required=True, help="A new file for the archive, or - for stdout.")
@click.option("--manifest", type=click.Path(dir_okay=False, path_type=Path), help="Also write it.")
@pass_session
def extract(session: Session, backup: str, path: str, manifest: Path | None) -> None:
    """Write a backup's archive, proven and decrypted, for pg_restore. It is plain text of a tenant.

    Nothing is written before the whole object was proven; what is piped on is proven as it goes,
    and an error at its end is an error of the whole.
    """
    with _told():
        store, keystore = _open()
        stored = _find(store, keystore, backup)
        backup_object.check_stored(store, stored.manifest, stored.key)
        digest = _write(store, stored, path)
        if manifest is not None:
            _private(manifest).write(msgspec.json.encode(stored.manifest, order="sorted"))
    facts = _facts(stored.manifest) | {"sha256": digest, "content": stored.manifest.content.digest}
    if session.json and path != "-":
        print_json(facts)
        return
    say(f"{facts['id']} of {facts['tenant']}: {facts['rows']} rows, as of {facts['snapshot_at']}")
    say(f"sha256 of the archive: {digest}")
    if path != "-":
        print_line(path)


@stored_backups.command("compare")
@click.argument("backup")
@click.option("--host", required=True)
@click.option("--port", type=int, default=5432, show_default=True)
@click.option("--user", required=True, help="The owner of it all; no superuser.")
@click.option("--database", required=True, help="Where the archive was restored.")
@click.option("--tls", type=click.Choice(("disable", "require")), default="require")
@pass_session
def compare(  # noqa: PLR0913 - one parameter per option
    session: Session, *, backup: str, host: str, port: int, user: str, database: str, tls: Tls
) -> None:
    """Compare a database with what a backup holds, table for table and row for row.

    The password is read from TENANTRY_SERVER_PASSWORD, or asked for.
    """
    with _told():
        manifest = _find(*_open(), backup).manifest
        password = Secret(ask_password(user, host))
        address = ServerAddress(host=host, port=port, user=user, password=password, tls=tls)
        found = asyncio.run(read_content(address, database, "tenantry", snapshot=None))
    unequal = differences(manifest.content, found)
    facts: Json = {"rows": found.rows, "content": found.digest, "differences": unequal}
    if session.json:
        print_json(facts)
    else:
        for words in unequal:
            print_line(words)
        say(f"content {found.digest}: " + ("different" if unequal else "equal"))
    if unequal:
        raise problem(Exit.FAILED, "content_mismatch", f"{len(unequal)} differences")


def _write(store: ObjectStore, stored: _Stored, path: str) -> str:
    """Copy the archive; its SHA-256 in hex."""
    digest = hashlib.sha256()
    out: BinaryIO = sys.stdout.buffer if path == "-" else _private(Path(path))
    pieces = backup_object.stored_plain(store, stored.manifest, stored.key)
    with out:
        for piece in pieces:
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()


def _private(path: Path) -> BinaryIO:
    """A new file that nobody else may read."""
    try:
        file = path.open("xb")
    except OSError as error:
        raise problem(Exit.FAILED, "file", f"cannot make {path}: {error.strerror}") from error
    path.chmod(0o600)
    return file


def _find(store: ObjectStore, keystore: Keystore, shown: str) -> _Stored:
    key = parse("bk", shown)
    for name in _manifests(store):
        if key is not None and key.hex in name:
            return _opened(store, keystore, name)
    raise NotFound(f"there is no backup {shown!r} in {store.url}")


def _every(store: ObjectStore, keystore: Keystore) -> Iterator[_Stored]:
    """Every backup that opens; of those that do not, it is said why."""
    for name in _manifests(store):
        try:
            yield _opened(store, keystore, name)
        except TenantryError as error:
            say(f"{name}: {error.message}")


def _manifests(store: ObjectStore) -> Iterator[str]:
    for one in store.list(BACKUPS_PREFIX):
        if one.key.rpartition("/")[2] == MANIFEST:
            yield one.key


def _opened(store: ObjectStore, keystore: Keystore, name: str) -> _Stored:
    data = store.get(name)
    head = backup_manifest.peek(data)
    key = keystore.open(head.tenant_id, head.key_version)
    manifest = backup_manifest.open_manifest(
        data, backup_id=head.backup_id, tenant_id=head.tenant_id, key=key
    )
    return _Stored(manifest, key)


def _facts(manifest: Manifest) -> Json:
    return {
        "id": show("bk", manifest.backup_id),
        "tenant": manifest.slug,
        "tenant_id": show("tn", manifest.tenant_id),
        "name": manifest.name,
        "snapshot_at": f"{manifest.snapshot_at:%Y-%m-%dT%H:%M:%SZ}",
        "postgres": manifest.server_version // 10_000,
        "schema_revision": manifest.schema_revision,
        "rows": manifest.content.rows,
        "plain_bytes": manifest.plain_bytes,
        "stored_bytes": manifest.stored_bytes,
    }


def _open() -> tuple[ObjectStore, Keystore]:
    settings = KeySettings.from_environment()
    keystore = make_keystore(settings.backup, Keyring.load(settings.keyring_file))
    if settings.backup.store is None or keystore is None:
        raise SettingsError("TENANTRY_BACKUP_STORE is not set; it names where the backups are")
    return open_store(settings.backup.store, settings.backup), keystore


@contextmanager
def _told() -> Iterator[None]:
    """Every refusal as the one problem that a command prints."""
    try:
        yield
    except SettingsError as error:
        raise problem(Exit.USAGE, "settings", str(error)) from error
    except NotFound as error:
        raise problem(Exit.NOT_FOUND, error.code, error.message) from error
    except StoreUnavailable as error:
        raise problem(Exit.UNREACHABLE, error.code, error.message) from error
    except TenantryError as error:
        raise problem(Exit.FAILED, error.code, error.message) from error
