"""What is destroyed by itself, in which order, and what never is."""

import os
from collections.abc import Iterable
from uuid import uuid4

import msgspec
import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.domain.backups import manifest_key, object_key
from control_plane.domain.errors import StoreUnavailable
from control_plane.services.pruning import collect_garbage, drop_replaced, prune_backups
from tests.integration.schedules.fleet import DAY, HOUR, LAST_NIGHT, MINUTE, NOW, Fleet

ONLY_ONE = {
    "keep_last": 1,
    "keep_daily": 0,
    "keep_weekly": 0,
    "keep_monthly": 0,
    "keep_yearly": 0,
}


async def states(fleet: Fleet) -> list[str]:
    """The states of all backups, the youngest data first."""
    rows = await fleet.rows("SELECT state FROM backups ORDER BY snapshot_at DESC")
    return [row["state"] for row in rows]


async def hold(fleet: Fleet, slug: str) -> None:
    await fleet.change(
        """UPDATE tenants SET legal_hold = 'case 7', legal_hold_by = 'olga',
               legal_hold_at = clock_timestamp() WHERE slug = $1""",
        slug,
    )


async def test_what_no_rule_keeps_goes_from_the_store_and_then_in_the_catalog(
    fleet: Fleet,
) -> None:
    acme, beta = await fleet.add("acme"), await fleet.add("beta")
    for tenant_id in (acme, beta):
        for days in range(4):
            await fleet.backup(tenant_id, LAST_NIGHT - days * DAY)
    await fleet.follow(acme, **{**ONLY_ONE, "keep_last": 2})
    await prune_backups(fleet.ports, NOW)
    rows = await fleet.rows(
        """SELECT object_key, manifest_key, state FROM backups
           WHERE tenant_id = $1 ORDER BY snapshot_at DESC""",
        acme,
    )
    assert [row["state"] for row in rows] == ["complete", "complete", "pruned", "pruned"]
    for row in rows:
        there = row["state"] == "complete"
        assert ({row["object_key"], row["manifest_key"]} <= fleet.stored) is there
    assert (await states(fleet)).count("complete") == 6
    assert await fleet.audited("backup.prune") == [("backup.prune", "acme")] * 2
    await prune_backups(fleet.ports, NOW)
    assert (await states(fleet)).count("complete") == 6


async def test_of_an_archived_tenant_its_backup_stays(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.follow(acme, **ONLY_ONE)
    await fleet.backup(acme, NOW - HOUR)
    await fleet.backup(acme, NOW - 2 * HOUR)
    pinned = await fleet.backup(acme, NOW - 3 * HOUR, cause="archive", pinned=True)
    await fleet.change(
        "UPDATE tenants SET state = 'archived', archive_backup_id = $2 WHERE id = $1",
        *(acme, pinned),
    )
    await prune_backups(fleet.ports, NOW)
    assert await states(fleet) == ["complete", "pruned", "complete"]


async def test_under_legal_hold_nothing_goes(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.follow(acme, **ONLY_ONE)
    for hours in range(3):
        await fleet.backup(acme, NOW - hours * HOUR)
    failed = await fleet.backup(acme, NOW - 9 * DAY, state="failed")
    await hold(fleet, "acme")
    before = fleet.stored
    await prune_backups(fleet.ports, NOW)
    await collect_garbage(fleet.ports, NOW)
    assert await states(fleet) == ["complete", "complete", "complete", "failed"]
    assert fleet.stored == before
    await fleet.change("UPDATE tenants SET legal_hold = NULL, legal_hold_at = NULL")
    await prune_backups(fleet.ports, NOW)
    await collect_garbage(fleet.ports, NOW)
    assert await states(fleet) == ["complete", "pruned", "pruned", "failed"]
    assert object_key(acme, failed, 1) not in fleet.stored


async def test_nothing_goes_while_an_operation_works_on_the_tenant(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.follow(acme, **ONLY_ONE)
    for hours in range(3):
        await fleet.backup(acme, NOW - hours * HOUR)
    await fleet.change(
        """INSERT INTO operations (id, kind, subject, queue, tenant_id, actor, deadline)
           VALUES (gen_random_uuid(), 'restore', 'acme', 'transfer', $1, 'olga', now())""",
        acme,
    )
    await prune_backups(fleet.ports, NOW)
    assert await states(fleet) == ["complete"] * 3


class Unruly(FileStore):
    """A store that is lost as soon as data, and not a manifest, are to be deleted."""

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        if any("/data." in key for key in wanted):
            raise StoreUnavailable("the store has gone away")
        super().delete(wanted)


async def test_the_manifest_goes_first_and_what_is_half_done_is_ended_later(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.follow(acme, **ONLY_ONE)
    kept = await fleet.backup(acme, NOW)
    lost = await fleet.backup(acme, NOW - HOUR)
    well = fleet.ports
    fleet.ports = msgspec.structs.replace(well, store=Unruly(fleet.directory))
    with pytest.raises(StoreUnavailable):
        await prune_backups(fleet.ports, NOW)
    assert await states(fleet) == ["complete", "complete"]
    assert manifest_key(acme, lost) not in fleet.stored
    assert object_key(acme, lost, 1) in fleet.stored
    await prune_backups(well, NOW)
    assert await states(fleet) == ["complete", "pruned"]
    assert fleet.stored == {object_key(acme, kept, 1), manifest_key(acme, kept)}


async def test_leftovers_go_after_a_day(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    complete = await fleet.backup(acme, LAST_NIGHT)
    corrupt = await fleet.backup(acme, LAST_NIGHT - HOUR, state="corrupt")
    running = await fleet.backup(acme, LAST_NIGHT, state="running")
    failed = await fleet.backup(acme, NOW - 3 * DAY, state="failed")
    pruned = await fleet.backup(acme, NOW - 4 * DAY, state="pruned")
    unknown = uuid4()
    garbage = {
        *(object_key(acme, failed, 1), manifest_key(acme, failed)),
        *(object_key(acme, pruned, 1), manifest_key(acme, pruned)),
        object_key(acme, complete, 7),
        object_key(acme, unknown, 1),
        object_key(uuid4(), unknown, 1),
    }
    needed = {
        *(object_key(acme, complete, 1), manifest_key(acme, complete)),
        *(object_key(acme, corrupt, 1), manifest_key(acme, corrupt)),
        *(object_key(acme, running, 1), manifest_key(acme, running)),
        "backups/README",
        "keystore/a/1",
        "exports/a/b/c",
    }
    young = object_key(acme, unknown, 2)
    for key in garbage | needed:
        fleet.store("x", key)
    fleet.store("x", young, at=NOW - 23 * HOUR)
    await collect_garbage(fleet.ports, NOW)
    assert fleet.stored == needed | {young}
    await collect_garbage(fleet.ports, NOW + 2 * HOUR)
    assert fleet.stored == needed


async def test_a_backup_that_only_the_store_knows_stays(fleet: Fleet) -> None:
    """After the loss of the catalog such backups are all there is."""
    tenant_id, backup_id = uuid4(), uuid4()
    keys = {object_key(tenant_id, backup_id, 1), manifest_key(tenant_id, backup_id)}
    for key in keys:
        fleet.store("x", key)
    await collect_garbage(fleet.ports, NOW)
    assert fleet.stored == keys


async def test_uploads_that_nobody_finishes_are_ended_after_a_day(fleet: Fleet) -> None:
    store = fleet.ports.store
    assert store is not None
    folders = [f"{prefix}/{uuid4().hex}/{uuid4().hex}" for prefix in ("backups", "exports")]
    uploads = [store.upload(f"{folder}/data.1") for folder in folders]
    at = (NOW - 23 * HOUR).timestamp()
    for folder in (fleet.directory / ".pending").iterdir():
        os.utime(folder, (at, at))
    await collect_garbage(fleet.ports, NOW)
    assert len(list(store.pending(""))) == 2
    await collect_garbage(fleet.ports, NOW + 2 * HOUR)
    assert list(store.pending("")) == []
    for upload in uploads:
        upload.abort()


async def replaced(fleet: Fleet, slug: str) -> None:
    """An in-place restore has replaced a database of this tenant; it is kept until now."""
    tenant_id = await fleet.add(slug)
    await fleet.change(
        """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name, template,
                                  template_fingerprint, purpose, kept_until)
           SELECT gen_random_uuid(), role_set_id, tenant_id, server_id,
                  't_' || left(md5(id::text), 26), template, template_fingerprint, 'previous', $2
           FROM databases WHERE tenant_id = $1""",
        tenant_id,
        NOW,
    )


async def test_a_replaced_database_is_dropped_when_its_time_is_over(fleet: Fleet) -> None:
    for slug in ("acme", "held", "busy"):
        await replaced(fleet, slug)
    await hold(fleet, "held")
    await fleet.change(
        """INSERT INTO operations (id, kind, subject, queue, tenant_id, actor, deadline)
           SELECT gen_random_uuid(), 'restore_undo', slug, 'control', id, 'olga', now()
           FROM tenants WHERE slug = 'busy'"""
    )
    await drop_replaced(fleet.ports, NOW - MINUTE)
    assert await fleet.begun("reclaim") == []
    await drop_replaced(fleet.ports, NOW)
    await drop_replaced(fleet.ports, NOW)
    rows = await fleet.rows(
        """SELECT t.slug, d.name FROM databases d JOIN tenants t ON t.id = d.tenant_id
           WHERE d.purpose = 'condemned'"""
    )
    assert [row["slug"] for row in rows] == ["acme"]
    assert await fleet.begun("reclaim") == [rows[0]["name"]]


async def test_without_a_store_nothing_is_destroyed(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.follow(acme, **ONLY_ONE)
    for hours in range(3):
        await fleet.backup(acme, NOW - hours * HOUR)
    without = msgspec.structs.replace(fleet.ports, store=None)
    await prune_backups(without, NOW)
    await collect_garbage(without, NOW)
    assert await states(fleet) == ["complete"] * 3
