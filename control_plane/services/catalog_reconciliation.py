"""What store and keystore have and a restored catalog does not know: put on record again.

Backups that were made since, versions of keys, and whole tenants, which come back as archived
ones that consist of their newest backup. Numbers of keys that were given out since must not be
given out again: a key that encrypted something would be replaced by another.
"""

import operator
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import msgspec

from control_plane.adapters import backup_manifest
from control_plane.adapters.keystore import Keystore
from control_plane.adapters.object_stores.store import ObjectStore
from control_plane.catalog import backups, databases, poolers, recovery, routes, tenants
from control_plane.catalog.databases import Credential
from control_plane.catalog.pool import Connection
from control_plane.catalog.recovery import FoundBackup
from control_plane.domain.backups import BACKUPS_PREFIX, MANIFEST, Manifest
from control_plane.domain.errors import Conflict, TenantryError
from control_plane.domain.tenants import TIER_LIMITS, Tier


class Stores(msgspec.Struct, frozen=True):
    """What the store and the keystore have.

    ``unreadable`` are manifests that do not open, and why; ``keys`` the versions by tenant.
    """

    manifests: list[Manifest]
    unreadable: dict[str, str]
    keys: dict[UUID, list[int]]

    @property
    def backup_ids(self) -> list[UUID]:
        """Every backup that is there, whether it opens or not."""
        unread = [UUID(hex=name.split("/")[-2]) for name in self.unreadable]
        return [one.backup_id for one in self.manifests] + unread


class Reconciled(msgspec.Struct, frozen=True):
    """What was put on record.

    ``adopted`` are tenants that the catalog did not know, ``refused`` those that cannot be put
    on record, and why; ``destroyed`` seem to have been deleted since: their keys are gone.
    ``pruned`` counts backups on record that the store does not have any more.
    """

    adopted: list[str]
    refused: list[str]
    destroyed: list[str]
    backups: int
    pruned: int
    keys: int


def read_stores(store: ObjectStore, keystore: Keystore | None) -> Stores:
    """Every manifest and the name of every key. Blocks."""
    manifests: list[Manifest] = []
    unreadable: dict[str, str] = {}
    keys: defaultdict[UUID, list[int]] = defaultdict(list)
    if keystore is None:
        return Stores(manifests, unreadable, keys)
    for one in store.list(BACKUPS_PREFIX):
        if one.key.endswith(f"/{MANIFEST}"):
            try:
                manifests.append(open_stored(store, keystore, one.key))
            except TenantryError as error:
                unreadable[one.key] = error.message
    for name in keystore.every():
        keys[name.tenant_id].append(name.version)
    return Stores(manifests, unreadable, dict(keys))


def open_stored(store: ObjectStore, keystore: Keystore, name: str) -> Manifest:
    """The manifest under this key of the store. Blocks.

    Raises:
        BackupCorrupt, KeyUnavailable: it does not open.
    """
    data = store.get(name)
    head = backup_manifest.peek(data)
    key = keystore.open(head.tenant_id, head.key_version)
    return backup_manifest.open_manifest(
        data, backup_id=head.backup_id, tenant_id=head.tenant_id, key=key
    )


async def reconcile(db: Connection, stores: Stores) -> Reconciled:
    """Put on record what is in the stores; nothing is deleted, there or here."""
    known = await recovery.tenants(db)
    living = {key for key, tenant in known.items() if tenant.state != "deleted"}
    keys = [
        await recovery.note_keys(db, key, versions)
        for key, versions in stores.keys.items()
        if key in living
    ]
    noted = [
        await recovery.note_backup(db, _found(one))
        for one in stores.manifests
        if one.tenant_id in living
    ]
    pruned = await recovery.mark_missing(db, stores.backup_ids)
    destroyed = await recovery.keyless(db, list(stores.keys))
    unknown = defaultdict(list)
    for one in sorted(stores.manifests, key=operator.attrgetter("snapshot_at")):
        if one.tenant_id not in known:
            unknown[one.tenant_id].append(one)
    taken = {known[key].slug for key in living}
    adopted, refused = await _adopt(db, list(unknown.values()), stores.keys, taken)
    return Reconciled(adopted, refused, destroyed, sum(noted), pruned, sum(keys))


async def _adopt(
    db: Connection,
    unknown: Sequence[Sequence[Manifest]],
    keys: dict[UUID, list[int]],
    taken: set[str],
) -> tuple[list[str], list[str]]:
    """The slugs of those that could be put on record, and a sentence for each of the others."""
    adopted: list[str] = []
    refused: list[str] = []
    for manifests in unknown:
        newest = manifests[-1]
        if newest.slug in taken:
            refused.append(f"{newest.slug}: another tenant has this slug")
            continue
        try:
            async with db.transaction():
                await _adopt_one(db, manifests, keys.get(newest.tenant_id, []))
        except Conflict as error:
            refused.append(f"{newest.slug}: {error.message}")
        else:
            adopted.append(newest.slug)
            taken.add(newest.slug)
    return adopted, refused


async def _adopt_one(db: Connection, manifests: Sequence[Manifest], versions: list[int]) -> None:
    """A tenant that is archived, with the logins, keys and backups that it had."""
    newest = manifests[-1]
    if newest.roles_key != newest.tenant_id:
        raise Conflict("its database has the roles of another tenant")
    await databases.insert_role_set(db, newest.tenant_id)
    cell_id = await routes.join_cell(db)
    tier = msgspec.convert(newest.tier, Tier)
    await tenants.insert(
        db,
        tenants.NewRow(
            id=newest.tenant_id,
            slug=newest.slug,
            name=newest.name,
            tier=tier,
            template=newest.template,
            region=newest.region,
            labels=newest.labels,
            cell_id=cell_id,
            placement_reason="found in the store after the loss of the catalog",
        ),
    )
    await _give_credential(db, newest)
    await recovery.note_keys(db, newest.tenant_id, versions)
    for one in manifests:
        await recovery.note_backup(db, _found(one))
    await recovery.mark_archived(db, newest.tenant_id, newest.backup_id, newest.snapshot_at)
    await _withdrawn_route(db, newest, cell_id, tier)


async def _give_credential(db: Connection, newest: Manifest) -> None:
    for one in newest.credentials:
        if one.state == "active":
            credential = msgspec.convert(
                {
                    "role_set_id": newest.roles_key,
                    "slot": one.slot,
                    "version": one.version,
                    "sealed": one.sealed,
                    "verifier": one.verifier,
                    "state": one.state,
                },
                Credential,
            )
            await databases.put_credential(db, credential)


async def _withdrawn_route(db: Connection, newest: Manifest, cell_id: UUID, tier: Tier) -> None:
    """Nobody serves the tenant; its DSN names a pooler of its cell, any of which will serve it."""
    every = await poolers.every(db, cell_id)
    endpoint = every[newest.tenant_id.int % len(every)]
    limits = TIER_LIMITS[tier]
    await routes.put(
        db,
        routes.NewRoute(
            tenant_id=newest.tenant_id,
            cell_id=cell_id,
            alias=newest.slug,
            database_id=newest.tenant_id,
            generation=newest.generation,
            pool_size=limits.pool_size,
            session_pool_size=limits.session_pool_size,
            endpoint_host=endpoint.host,
            endpoint_port=endpoint.port,
        ),
    )
    route = await routes.find(db, newest.tenant_id)
    if route is not None:
        await routes.touch(db, route, "withdrawn")


def _found(manifest: Manifest) -> FoundBackup:
    return FoundBackup(
        manifest.backup_id,
        manifest.tenant_id,
        manifest.server_name,
        manifest.cause,
        backups.stored(manifest),
    )
