"""What ends by itself: deletions whose time has come, bundles that expire, what nobody wants."""

import datetime as dt
from uuid import UUID

import pytest

from control_plane.adapters import clock
from control_plane.domain.backups import export_key
from tests.integration.schedules.fleet import DAY, Fleet
from workers.lifecycle_ticks import delete_expired_exports, delete_stray_bundles, end_deletions

HOLD = """UPDATE tenants SET legal_hold = 'case 7', legal_hold_by = 'olga',
              legal_hold_at = clock_timestamp() WHERE id = $1"""
RELEASE = "UPDATE tenants SET legal_hold = NULL, legal_hold_by = NULL, legal_hold_at = NULL"


async def deleting(fleet: Fleet, slug: str, *, minutes: int, purged: bool = False) -> UUID:
    """A tenant whose grace, or whose time after that, is over in so many minutes."""
    tenant_id = await fleet.add(slug)
    due = "shred_after" if purged else "delete_after"
    await fleet.change(
        f"""UPDATE tenants SET state = 'deleting', deleting_from = 'active',
                {due} = clock_timestamp() + make_interval(mins => $2) WHERE id = $1""",  # noqa: S608 - two constants
        tenant_id,
        minutes,
    )
    return tenant_id


async def an_export(fleet: Fleet, tenant_id: UUID, state: str, *, hours: int = 1) -> str:
    """An export that expires in so many hours, with its object; its operation is over."""
    export_id, operation_id = clock.new_id(), clock.new_id()
    key = export_key(tenant_id, export_id, 1)
    fleet.store("bundle", key)
    await fleet.change(
        """INSERT INTO operations (id, kind, subject, queue, tenant_id, actor, deadline, state,
                                   finished_at, error_code)
           VALUES ($1, 'export', 'x', 'transfer', $2, 'olga', clock_timestamp(),
                   CASE $3 WHEN 'failed' THEN 'failed' ELSE 'succeeded' END, clock_timestamp(),
                   CASE $3 WHEN 'failed' THEN 'dump_failed' END)""",
        operation_id,
        tenant_id,
        state,
    )
    await fleet.change(
        """INSERT INTO exports (id, tenant_id, operation_id, state, recipient, object_key,
                                stored_bytes, sha256, created_by, finished_at, expires_at)
           VALUES ($1, $2, $3, $4, 'age1', $5, 6, $6, 'olga', clock_timestamp(),
                   clock_timestamp() + make_interval(hours => $7))""",
        export_id,
        tenant_id,
        operation_id,
        state,
        key,
        bytes(32),
        hours,
    )
    return key


async def test_a_deletion_goes_on_when_its_time_has_come(fleet: Fleet) -> None:
    await deleting(fleet, "over", minutes=-1)
    await deleting(fleet, "grace", minutes=5)
    await deleting(fleet, "purged", minutes=-1, purged=True)
    await deleting(fleet, "kept", minutes=5, purged=True)
    for _ in range(2):
        await end_deletions(fleet.ports)
        assert await fleet.begun("purge") == ["over"]
        assert await fleet.begun("shred") == ["purged"]
    told = await fleet.audited("tenant.purge", "tenant.shred")
    assert sorted(told) == [("tenant.purge", "over"), ("tenant.shred", "purged")]


@pytest.mark.parametrize(("purged", "kind"), [(False, "purge"), (True, "shred")])
async def test_a_legal_hold_stops_it(fleet: Fleet, kind: str, *, purged: bool) -> None:
    tenant_id = await deleting(fleet, "held", minutes=-1, purged=purged)
    await fleet.change(HOLD, tenant_id)
    await end_deletions(fleet.ports)
    assert await fleet.begun(kind) == []
    await fleet.change(RELEASE)
    await end_deletions(fleet.ports)
    assert await fleet.begun(kind) == ["held"]


async def test_what_failed_rests_before_it_is_tried_again(fleet: Fleet) -> None:
    await deleting(fleet, "failing", minutes=-1)
    await end_deletions(fleet.ports)
    await fleet.end_operations("failed")
    await end_deletions(fleet.ports)
    assert await fleet.begun("purge") == []
    await fleet.change("UPDATE operations SET finished_at = finished_at - interval '11 min'")
    await end_deletions(fleet.ports)
    assert await fleet.begun("purge") == ["failing"]


async def test_what_an_undelete_has_opened_half_way_is_not_dropped(fleet: Fleet) -> None:
    tenant_id = await deleting(fleet, "opened", minutes=-1)
    await fleet.change(
        """INSERT INTO routes (tenant_id, cell_id, alias, database_id, state, pool_size,
               session_pool_size, generation, version, endpoint_host, endpoint_port)
           SELECT t.id, t.cell_id, t.slug, d.id, 'published', 5, 5, 1, 1, '127.0.0.1', 6432
           FROM tenants t JOIN databases d ON d.tenant_id = t.id WHERE t.id = $1""",
        tenant_id,
    )
    await end_deletions(fleet.ports)
    assert await fleet.begun("purge") == []
    await fleet.change("UPDATE routes SET state = 'withdrawn'")
    await end_deletions(fleet.ports)
    assert await fleet.begun("purge") == ["opened"]


async def test_expired_and_failed_bundles_go_and_others_stay(fleet: Fleet) -> None:
    tenant_id = await fleet.add("acme")
    expired = await an_export(fleet, tenant_id, "ready", hours=-1)
    failed = await an_export(fleet, tenant_id, "failed")
    # The object of an attempt that was given up, beside the one on record.
    fleet.store("old", failed.replace("bundle.1", "bundle.0"))
    ready = await an_export(fleet, tenant_id, "ready")
    await delete_expired_exports(fleet.ports)
    assert fleet.stored == {ready}
    rows = await fleet.rows("SELECT object_key, state, deleted_at FROM exports")
    found = {row["object_key"]: (row["state"], row["deleted_at"] is None) for row in rows}
    assert found == {
        expired: ("deleted", False),
        failed: ("failed", False),
        ready: ("ready", True),
    }
    await delete_expired_exports(fleet.ports)
    assert await fleet.audited("export.delete") == [("export.delete", "acme")] * 2


async def test_a_bundle_that_nobody_wants_goes_after_a_day(fleet: Fleet) -> None:
    tenant_id = await fleet.add("acme")
    ready = await an_export(fleet, tenant_id, "ready")
    stray, young = (ready.replace("bundle.1", f"bundle.{epoch}") for epoch in (2, 3))
    fleet.store("stray", stray)
    fleet.store("young", young, dt.datetime.now(dt.UTC) - DAY / 2)
    await delete_stray_bundles(fleet.ports)
    assert fleet.stored == {ready, young}
