"""Turns, caps, fairness, beats that come twice, outages, failures: on a clock of the test's own."""

import asyncio

import msgspec
import pytest

from control_plane.config import BackupSettings
from control_plane.domain.schedules import catch_up, newest_slot, turn_for
from control_plane.services.backup_planning import plan_backups, plan_drills
from tests.integration.schedules.fleet import DAY, HOUR, LAST_NIGHT, MINUTE, NOW, Fleet


def capped(fleet: Fleet, at_once: int, per_server: int) -> None:
    settings = msgspec.structs.replace(
        fleet.ports.settings, backup=BackupSettings(at_once=at_once, per_server=per_server)
    )
    fleet.ports = msgspec.structs.replace(fleet.ports, settings=settings)


async def test_a_tenant_without_a_turn_gets_one(fleet: Fleet) -> None:
    new = await fleet.add("new", since=NOW - HOUR)
    old = await fleet.add("old", since=NOW - 5 * DAY)
    policy = await fleet.follow(new)
    await fleet.plan(NOW)
    coming = turn_for(policy, new, LAST_NIGHT + DAY)
    assert await fleet.turn(new) == (coming.slot_at, coming.due_at)
    # A store that is configured late does not begin with all of them together.
    assert await fleet.turn(old) == (LAST_NIGHT, catch_up(policy, old, NOW))
    assert await fleet.begun() == []


async def test_a_turn_begins_a_backup_for_its_slot_and_the_next_one_comes(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    policy = await fleet.follow(acme)
    await fleet.due(acme, LAST_NIGHT, NOW - MINUTE)
    await fleet.plan(NOW)
    backup = (await fleet.rows("SELECT * FROM backups"))[0]
    assert (backup["tenant_id"], backup["cause"], backup["slot_at"], backup["state"]) == (
        *(acme, "schedule", LAST_NIGHT),
        "running",
    )
    assert await fleet.begun() == ["acme"]
    coming = turn_for(policy, acme, LAST_NIGHT + DAY)
    assert await fleet.turn(acme) == (coming.slot_at, coming.due_at)
    assert await fleet.value("SELECT actor FROM operations WHERE kind = 'backup'") == "system"


async def test_what_is_not_due_yet_waits(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT, NOW + MINUTE)
    await fleet.plan(NOW)
    assert await fleet.begun() == []


@pytest.mark.parametrize("state", ["archived", "deleting", "provisioning"])
async def test_only_who_is_active_or_suspended_is_backed_up(fleet: Fleet, state: str) -> None:
    acme, idle = await fleet.add("acme"), await fleet.add("idle")
    await fleet.change("ALTER TABLE tenants DISABLE TRIGGER tenants_legal_change")
    await fleet.change(
        """UPDATE tenants SET state = $2, delete_after = $3, deleting_from = 'active',
               archive_backup_id = $1 WHERE id = $1""",
        *(acme, state, NOW + DAY),
    )
    await fleet.change("UPDATE tenants SET state = 'suspended' WHERE id = $1", idle)
    for tenant_id in (acme, idle):
        await fleet.due(tenant_id, LAST_NIGHT)
    await fleet.plan(NOW)
    assert await fleet.begun() == ["idle"]


async def test_no_more_run_than_may_in_all_and_on_one_server(fleet: Fleet) -> None:
    capped(fleet, at_once=3, per_server=2)
    await fleet.second_server()
    for number in range(4):
        for server in ("pg-a", "pg-b"):
            tenant_id = await fleet.add(f"{server}-{number}", server=server)
            await fleet.due(tenant_id, LAST_NIGHT)
    await fleet.plan(NOW)
    begun = await fleet.begun()
    assert len(begun) == 3
    assert {sum(slug.startswith(server) for slug in begun) for server in ("pg-a", "pg-b")} == {1, 2}
    await fleet.plan(NOW)
    assert await fleet.begun() == begun
    await fleet.end_operations()
    await fleet.plan(NOW)
    assert len(await fleet.begun()) == 3
    assert not set(begun) & set(await fleet.begun())


async def test_backups_by_hand_and_archiving_take_places_too(fleet: Fleet) -> None:
    capped(fleet, at_once=2, per_server=2)
    busy, acme, beta = [await fleet.add(slug) for slug in ("busy", "acme", "beta")]
    await fleet.change(
        """INSERT INTO operations (id, kind, subject, queue, tenant_id, actor, deadline)
           VALUES (gen_random_uuid(), 'archive', 'busy', 'transfer', $1, 'olga', now())""",
        busy,
    )
    await fleet.due(acme, LAST_NIGHT)
    await fleet.due(beta, LAST_NIGHT)
    await fleet.plan(NOW)
    assert len(await fleet.begun()) == 1


async def test_nothing_begins_while_there_is_no_place_at_all(fleet: Fleet) -> None:
    capped(fleet, at_once=0, per_server=2)
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    await fleet.plan(NOW)
    assert await fleet.begun() == []
    assert await fleet.turn(acme) == (LAST_NIGHT, LAST_NIGHT)


async def test_who_waited_longest_comes_first(fleet: Fleet) -> None:
    capped(fleet, at_once=2, per_server=2)
    for number, slug in enumerate(("third", "first", "second")):
        tenant_id = await fleet.add(slug)
        await fleet.due(tenant_id, LAST_NIGHT, NOW - (3, 9, 6)[number] * MINUTE)
    await fleet.plan(NOW)
    assert await fleet.begun() == ["first", "second"]


async def test_waiting_is_measured_by_what_may_be_lost_and_nobody_is_overtaken_for_ever(
    fleet: Fleet,
) -> None:
    capped(fleet, at_once=1, per_server=1)
    hasty, calm = await fleet.add("hasty", tier="enterprise"), await fleet.add("calm")
    # 480 and 1800 minutes: 20 minutes are more of the first than 60 are of the second.
    await fleet.due(hasty, NOW - 6 * HOUR, NOW - 20 * MINUTE)
    await fleet.due(calm, LAST_NIGHT, NOW - 60 * MINUTE)
    await fleet.plan(NOW)
    assert await fleet.begun() == ["hasty"]
    await fleet.end_operations()
    await fleet.due(hasty, NOW, NOW + 20 * MINUTE)
    await fleet.plan(NOW + 21 * MINUTE)
    assert await fleet.begun() == ["calm"]


async def test_a_busy_tenant_keeps_its_turn_and_others_are_not_kept_waiting(fleet: Fleet) -> None:
    capped(fleet, at_once=1, per_server=1)
    busy, acme = await fleet.add("busy"), await fleet.add("acme")
    await fleet.change(
        """INSERT INTO operations (id, kind, subject, queue, tenant_id, actor, deadline)
           VALUES (gen_random_uuid(), 'migrate', 'busy', 'control', $1, 'olga', now())""",
        busy,
    )
    await fleet.due(busy, LAST_NIGHT)
    await fleet.due(acme, LAST_NIGHT)
    await fleet.plan(NOW)
    assert await fleet.begun() == ["acme"]
    assert await fleet.turn(busy) == (LAST_NIGHT, LAST_NIGHT)
    await fleet.end_operations()
    await fleet.plan(NOW + MINUTE)
    assert await fleet.begun() == ["busy"]


async def test_a_server_that_is_away_takes_no_place(fleet: Fleet) -> None:
    capped(fleet, at_once=1, per_server=1)
    await fleet.second_server()
    lost, acme = await fleet.add("lost"), await fleet.add("acme", server="pg-b")
    await fleet.change("UPDATE servers SET reachable = false WHERE name = 'pg-a'")
    await fleet.due(lost, LAST_NIGHT - DAY)
    await fleet.due(acme, LAST_NIGHT)
    await fleet.plan(NOW)
    assert await fleet.begun() == ["acme"]


async def test_two_beats_at_once_begin_what_one_would(fleet: Fleet) -> None:
    capped(fleet, at_once=4, per_server=4)
    for number in range(8):
        await fleet.due(await fleet.add(f"t{number:02}"), LAST_NIGHT)
    for _ in range(3):
        await asyncio.gather(*(plan_backups(fleet.ports, NOW) for _ in range(2)))
        assert len(await fleet.begun()) == 4
    await fleet.end_operations()
    await asyncio.gather(*(plan_backups(fleet.ports, NOW) for _ in range(2)))
    await fleet.end_operations()
    await fleet.plan(NOW)
    assert await fleet.begun() == []
    assert await fleet.value("SELECT count(*) FROM backups") == 8


async def test_while_somebody_plans_others_do_nothing(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    async with fleet.ports.catalog.transaction() as db:
        await db.execute("SELECT FROM backup_planning FOR UPDATE")
        await plan_backups(fleet.ports, NOW)
        await plan_drills(fleet.ports, NOW)
        assert await fleet.begun() == []
    await fleet.plan(NOW)
    assert await fleet.begun() == ["acme"]


async def test_a_slot_that_has_its_backup_is_not_served_again(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    await fleet.plan(NOW)
    await fleet.end_operations()
    await fleet.due(acme, LAST_NIGHT)
    await fleet.plan(NOW + MINUTE)
    assert await fleet.begun() == []
    assert (await fleet.turn(acme))[0] == LAST_NIGHT + DAY


async def test_after_an_outage_only_the_newest_slot_is_made_up_for(fleet: Fleet) -> None:
    acme = await fleet.add("acme", tier="enterprise")
    policy = await fleet.follow(acme, jitter_minutes=0)
    await fleet.due(acme, NOW - 4 * DAY)
    await fleet.change("UPDATE backup_planning SET planned_at = $1", NOW - 5 * DAY)
    await plan_backups(fleet.ports, NOW + HOUR)
    assert await fleet.begun() == []
    slot, due = await fleet.turn(acme)
    assert NOW + HOUR <= due <= NOW + HOUR + 10 * MINUTE
    await fleet.plan(due)
    assert await fleet.begun() == ["acme"]
    assert slot < newest_slot(policy, due) == await fleet.value("SELECT slot_at FROM backups")
    await fleet.end_operations()
    await fleet.plan(due + MINUTE)
    assert await fleet.begun() == []


async def test_catching_up_is_spread_over_the_jitter(fleet: Fleet) -> None:
    tenants = [await fleet.add(f"t{number:02}") for number in range(12)]
    waiting = await fleet.add("waiting")
    for tenant_id in tenants:
        await fleet.due(tenant_id, LAST_NIGHT, NOW - 30 * MINUTE)
    # This one waited before the outage already: it keeps its place.
    await fleet.due(waiting, LAST_NIGHT, NOW - 2 * HOUR)
    await fleet.change("UPDATE backup_planning SET planned_at = $1", NOW - HOUR)
    await plan_backups(fleet.ports, NOW)
    assert await fleet.begun() == ["waiting"]
    dues = [(await fleet.turn(tenant_id))[1] for tenant_id in tenants]
    assert all(NOW <= due <= NOW + 2 * HOUR for due in dues)
    assert max(dues) - min(dues) > HOUR
    # Planning goes on: nothing is spread once more.
    await fleet.end_operations()
    capped(fleet, at_once=99, per_server=99)
    await fleet.plan(NOW + MINUTE)
    await fleet.plan(NOW + 2 * HOUR)
    assert len(await fleet.begun()) == 12


async def test_a_failed_backup_is_tried_again_after_a_pause_and_not_for_ever(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    for attempt in range(3):
        await fleet.plan(NOW + attempt * HOUR)
        assert await fleet.begun() == ["acme"], attempt
        await fleet.end_operations("failed")
        await fleet.change(
            """UPDATE backups SET finished_at = $1
               WHERE created_at = (SELECT max(created_at) FROM backups)""",
            NOW + attempt * HOUR,
        )
        await fleet.plan(NOW + attempt * HOUR + 29 * MINUTE)
        assert await fleet.begun() == [], attempt
    await fleet.plan(NOW + 4 * HOUR)
    assert await fleet.begun() == []
    slots = await fleet.rows("SELECT DISTINCT slot_at FROM backups")
    assert [row["slot_at"] for row in slots] == [LAST_NIGHT]


async def test_a_failed_backup_is_not_tried_again_once_there_is_another(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    await fleet.plan(NOW)
    await fleet.end_operations("failed")
    await fleet.change("UPDATE backups SET finished_at = $1, created_at = $1", NOW)
    await fleet.backup(acme, NOW + 10 * MINUTE, cause="manual")
    await fleet.plan(NOW + HOUR)
    assert await fleet.begun() == []


async def test_without_a_store_nothing_is_planned(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    fleet.ports = msgspec.structs.replace(fleet.ports, store=None)
    await fleet.plan(NOW)
    await plan_drills(fleet.ports, NOW)
    assert await fleet.begun() == []
    assert await fleet.turn(acme) == (LAST_NIGHT, LAST_NIGHT)
