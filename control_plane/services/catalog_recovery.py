"""A lost catalog, back from the store: restored as a copy, then accepted by an operator.

Restoring only puts the copy there; it is fenced, because it is not where it was accepted. Accepting
brings it to what can be true after the loss (``catalog.recovery``), records what the store has and
it does not know, and lets workers, API and agents work from it.
"""

import asyncio

import msgspec

from control_plane.adapters import backup_object
from control_plane.adapters.catalog_load import is_empty, load_catalog
from control_plane.adapters.catalog_server import SESSION_NAME, CatalogServer, find_catalog
from control_plane.adapters.database_content import read_content
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import audit, catalog_life, migrate, recovery
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.pool import Connection
from control_plane.catalog.recovery import Ended, Forgotten
from control_plane.domain.backups import differences
from control_plane.domain.catalog_backups import CatalogManifest
from control_plane.domain.errors import Conflict, ContentMismatch, NotFound, WrongState
from control_plane.domain.names import parse
from control_plane.services import catalog_backups
from control_plane.services.backups import require_store
from control_plane.services.catalog_reconciliation import Reconciled, Stores, reconcile
from control_plane.services.ports import Ports

_MAJOR = 10_000
_SHOWN = 5


class Accepted(msgspec.Struct, frozen=True):
    """What accepting has changed: a report for the operator."""

    ended: list[Ended]
    forgotten: list[Forgotten]
    found: Reconciled
    unreadable: dict[str, str]


async def restore(ports: Ports, shown: str | None) -> CatalogManifest:
    """Load a backup of the catalog, by default the newest, into the empty database of the DSN.

    Where it was loaded already, by a restore that died, it is only compared.

    Raises:
        Conflict: something else is in the database, or the server is older than the backup's.
        NotFound: there is no such backup.
        BackupCorrupt, ObjectMissing, KeyUnavailable: it does not open; nothing was loaded.
        ContentMismatch: what was loaded is not what was backed up.
    """
    settings, store = ports.settings, require_store(ports)
    server = await find_catalog(settings.catalog_dsn, settings.catalog_password)
    manifest = await asyncio.to_thread(_chosen, ports, store, shown)
    if await is_empty(server):
        await _load(ports, store, server, manifest)
        await _compare(server, manifest)
    elif await _unequal(server, manifest):
        raise Conflict(
            f"the database {server.database} is not empty, and is not this backup; a catalog is "
            "restored into a new one (tenantry-run prepare makes it)"
        )
    await asyncio.to_thread(migrate.migrate, settings)
    return manifest


async def _load(
    ports: Ports, store: ObjectStore, server: CatalogServer, manifest: CatalogManifest
) -> None:
    if server.version_num // _MAJOR < manifest.server_version // _MAJOR:
        major = manifest.server_version // _MAJOR
        raise Conflict(f"the backup is of Postgres {major} and needs the same or a newer one")
    await asyncio.to_thread(backup_object.check_stored, store, manifest, manifest.key)
    archive = backup_object.stored_plain(store, manifest, manifest.key)
    await load_catalog(server, archive, ports.programs.restore(server.version_num // _MAJOR))


async def accept(db: Connection, stores: Stores, caller: Caller) -> Accepted:
    """Work from this copy of the catalog from now on; all in the caller's transaction.

    Raises:
        CatalogMismatch: it is of another release, and was not migrated yet.
        WrongState: it is accepted already.
    """
    await catalog_life.require_known(db)
    if await catalog_life.is_accepted(db):
        raise WrongState("this catalog is accepted already; there is nothing to do")
    ended = await recovery.end_operations(db)
    forgotten = await recovery.forget_databases(db)
    await recovery.doubt_servers(db)
    report = Accepted(ended, forgotten, await reconcile(db, stores), stores.unreadable)
    await catalog_life.accept(db, caller.principal.name)
    await audit.record(db, caller, Entry("catalog.accept", "catalog", facts=_facts(report)))
    return report


def _chosen(ports: Ports, store: ObjectStore, shown: str | None) -> CatalogManifest:
    found = catalog_backups.every(store)
    if shown is not None:
        found = [one for one in found if one.id == parse("bk", shown)]
    if not found:
        what = f"backup {shown!r} of the catalog" if shown else "backup of the catalog"
        raise NotFound(f"there is no {what} in {store.url}")
    return catalog_backups.open_one(store, ports.keyring, found[0])


async def _unequal(server: CatalogServer, manifest: CatalogManifest) -> list[str]:
    """What the database has differently from the backup."""
    content = await read_content(server.address, server.database, SESSION_NAME)
    return differences(manifest.content, content)


async def _compare(server: CatalogServer, manifest: CatalogManifest) -> None:
    if unequal := await _unequal(server, manifest):
        raise ContentMismatch(
            f"what was loaded is not what was backed up: {'; '.join(unequal[:_SHOWN])}; drop the "
            "database, make it anew, and restore an older backup"
        )


def _facts(report: Accepted) -> dict[str, object]:
    found = report.found
    return {
        "operations_ended": len(report.ended),
        "databases_forgotten": len(report.forgotten),
        "tenants_adopted": found.adopted,
        "backups_found": found.backups,
        "backups_missing": found.pruned,
        "keys_found": found.keys,
    }
