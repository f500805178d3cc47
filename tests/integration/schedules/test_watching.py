"""RPOs that are broken and mended, drills in rotation, and the figures of the fleet."""

import msgspec
import pytest

from control_plane.catalog import backup_watch
from control_plane.config import BackupSettings
from control_plane.domain.names import show
from control_plane.services.backup_planning import plan_drills, watch_rpo
from tests.integration.schedules.fleet import DAY, HOUR, LAST_NIGHT, MINUTE, NOW, Fleet

RPO_EVENTS = ("backup.rpo_breached", "backup.rpo_mended")


async def test_a_breach_is_told_once_and_so_is_its_end(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    await fleet.backup(acme, NOW - 30 * HOUR)
    await watch_rpo(fleet.ports, NOW)
    assert await fleet.audited(*RPO_EVENTS) == []
    for minutes in (1, 2):
        await watch_rpo(fleet.ports, NOW + minutes * MINUTE)
        assert await fleet.audited(*RPO_EVENTS) == [("backup.rpo_breached", "acme")]
    breached_at = await fleet.value("SELECT breached_at FROM backup_turns")
    assert breached_at == NOW + MINUTE
    await fleet.backup(acme, NOW + 3 * MINUTE)
    for minutes in (4, 5):
        await watch_rpo(fleet.ports, NOW + minutes * MINUTE)
    assert await fleet.audited(*RPO_EVENTS) == [
        ("backup.rpo_breached", "acme"),
        ("backup.rpo_mended", "acme"),
    ]
    facts = await fleet.value("SELECT facts FROM audit_events ORDER BY seq DESC LIMIT 1")
    assert facts["rpo_minutes"] == 1800
    await watch_rpo(fleet.ports, NOW + 40 * HOUR)
    assert len(await fleet.audited(*RPO_EVENTS)) == 3


@pytest.mark.parametrize("state", ["failed", "corrupt", "pruned", "running"])
async def test_only_a_complete_backup_counts(fleet: Fleet, state: str) -> None:
    acme = await fleet.add("acme", since=NOW - 31 * HOUR)
    await fleet.due(acme, LAST_NIGHT)
    await fleet.backup(acme, NOW - HOUR, state=state)
    await watch_rpo(fleet.ports, NOW)
    assert await fleet.audited(*RPO_EVENTS) == [("backup.rpo_breached", "acme")]


async def test_before_its_first_backup_a_tenant_is_judged_from_its_beginning(fleet: Fleet) -> None:
    for slug, hours in (("new", 29), ("old", 31)):
        await fleet.due(await fleet.add(slug, since=NOW - hours * HOUR), LAST_NIGHT)
    await watch_rpo(fleet.ports, NOW)
    assert await fleet.audited(*RPO_EVENTS) == [("backup.rpo_breached", "old")]


async def test_a_database_made_from_an_old_backup_begins_anew(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    backup = await fleet.backup(acme, NOW - 9 * DAY)
    await fleet.change(
        "UPDATE databases SET backup_id = $2, created_at = $3 WHERE tenant_id = $1",
        *(acme, backup, NOW - HOUR),
    )
    await watch_rpo(fleet.ports, NOW)
    assert await fleet.audited(*RPO_EVENTS) == []
    await watch_rpo(fleet.ports, NOW + 30 * HOUR)
    assert await fleet.audited(*RPO_EVENTS) == [("backup.rpo_breached", "acme")]


async def test_the_rpo_is_that_of_the_tenants_own_schedule(fleet: Fleet) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT)
    await fleet.backup(acme, NOW - 3 * HOUR)
    await fleet.follow(acme, cron="0 * * * *", rpo_minutes=150, jitter_minutes=5)
    await watch_rpo(fleet.ports, NOW)
    assert await fleet.audited(*RPO_EVENTS) == [("backup.rpo_breached", "acme")]


async def add_proven(fleet: Fleet, slug: str, days: float, **where: str) -> None:
    """A tenant whose last proof is so old; negative: it has none, and its first backup is."""
    tenant_id = await fleet.add(slug, server=where.get("server", "pg-a"))
    await fleet.due(tenant_id, LAST_NIGHT + DAY)
    backup = await fleet.backup(tenant_id, NOW - abs(days) * DAY)
    if days > 0:
        await fleet.prove(tenant_id, backup, NOW - days * DAY)


async def test_who_was_proven_longest_ago_is_drilled_first(fleet: Fleet) -> None:
    await fleet.second_server()
    # The policy says 30 days; drills begin after four fifths of them.
    await add_proven(fleet, "fresh", 23)
    await add_proven(fleet, "older", 25)
    await add_proven(fleet, "oldest", 40)
    await add_proven(fleet, "just-made", -0.5, server="pg-b")
    await plan_drills(fleet.ports, NOW)
    assert await fleet.begun("verify_backup") == ["oldest"]
    await plan_drills(fleet.ports, NOW + MINUTE)
    assert await fleet.begun("verify_backup") == ["oldest"]
    await fleet.end_operations()
    await plan_drills(fleet.ports, NOW + 2 * MINUTE)
    assert await fleet.begun("verify_backup") == ["older"]
    operation = (await fleet.rows("SELECT * FROM operations WHERE subject = 'older'"))[-1]
    assert operation["input"]["cause"] == "rotation"
    assert operation["actor"] == "system"
    await fleet.end_operations()
    await plan_drills(fleet.ports, NOW + 3 * MINUTE)
    assert await fleet.begun("verify_backup") == []  # 23 of 30 days are less than four fifths


async def test_who_was_never_proven_comes_before_all_others(fleet: Fleet) -> None:
    await fleet.second_server()
    await add_proven(fleet, "old", 40)
    await add_proven(fleet, "never", -2, server="pg-b")
    await add_proven(fleet, "never-either", -3, server="pg-b")
    settings = msgspec.structs.replace(fleet.ports.settings, backup=BackupSettings(at_once=1))
    fleet.ports = msgspec.structs.replace(fleet.ports, settings=settings)
    await plan_drills(fleet.ports, NOW)
    assert await fleet.begun("verify_backup") == ["never"]


async def test_the_first_drill_comes_a_day_after_the_first_backup_pruned_or_not(
    fleet: Fleet,
) -> None:
    acme = await fleet.add("acme")
    await fleet.due(acme, LAST_NIGHT + DAY)
    await fleet.backup(acme, NOW - 26 * HOUR, state="failed")
    await fleet.backup(acme, NOW - 23 * HOUR, state="pruned")
    await fleet.backup(acme, NOW - HOUR)
    await plan_drills(fleet.ports, NOW)
    assert await fleet.begun("verify_backup") == []
    await plan_drills(fleet.ports, NOW + 2 * HOUR)
    assert await fleet.begun("verify_backup") == ["acme"]


async def test_drills_have_caps_of_their_own(fleet: Fleet) -> None:
    await fleet.second_server()
    for number in range(6):
        server = "pg-a" if number % 2 else "pg-b"
        await add_proven(fleet, f"t-{number}", 40 + number, server=server)
    await plan_drills(fleet.ports, NOW)
    begun = await fleet.begun("verify_backup")
    assert begun == ["t-5", "t-4"]
    settings = msgspec.structs.replace(fleet.ports.settings, backup=BackupSettings(at_once=0))
    fleet.ports = msgspec.structs.replace(fleet.ports, settings=settings)
    await fleet.end_operations()
    await plan_drills(fleet.ports, NOW)
    assert await fleet.begun("verify_backup") == []


async def test_a_drill_that_failed_is_tried_again_after_a_pause(fleet: Fleet) -> None:
    await add_proven(fleet, "acme", 40)
    await plan_drills(fleet.ports, NOW)
    await fleet.end_operations("failed")
    await plan_drills(fleet.ports, NOW + 5 * HOUR)
    assert await fleet.begun("verify_backup") == []
    await plan_drills(fleet.ports, NOW + 6 * HOUR)
    assert await fleet.begun("verify_backup") == ["acme"]


async def test_the_newest_complete_backup_is_drilled_and_of_who_is_archived_the_one_it_is(
    fleet: Fleet,
) -> None:
    await fleet.second_server()
    acme, gone = await fleet.add("acme"), await fleet.add("gone", server="pg-b")
    await fleet.backup(acme, NOW - 9 * DAY, verified=True)
    wanted = await fleet.backup(acme, NOW - 2 * DAY)
    await fleet.backup(acme, NOW - DAY, state="corrupt")
    pinned = await fleet.backup(gone, NOW - 9 * DAY, cause="archive", pinned=True)
    await fleet.backup(gone, NOW - 8 * DAY)
    await fleet.change(
        """UPDATE tenants SET state = 'archived', archive_backup_id = $2 WHERE id = $1""",
        *(gone, pinned),
    )
    await fleet.change("DELETE FROM databases WHERE tenant_id = $1", gone)
    for tenant_id in (acme, gone):
        await fleet.due(tenant_id, LAST_NIGHT)
    await plan_drills(fleet.ports, NOW)
    rows = await fleet.rows("SELECT input FROM operations WHERE kind = 'verify_backup'")
    shown = {row["input"]["backup"] for row in rows}
    assert shown == {show("bk", wanted), show("bk", pinned)}


async def test_busy_tenants_and_lost_servers_are_not_drilled(fleet: Fleet) -> None:
    await fleet.second_server()
    await add_proven(fleet, "busy", 50)
    await add_proven(fleet, "lost", 45, server="pg-b")
    await add_proven(fleet, "acme", 40)
    await fleet.change("UPDATE servers SET reachable = false WHERE name = 'pg-b'")
    await fleet.change(
        """INSERT INTO operations (id, kind, subject, queue, tenant_id, actor, deadline)
           SELECT gen_random_uuid(), 'migrate', slug, 'control', id, 'olga', now()
           FROM tenants WHERE slug = 'busy'"""
    )
    await plan_drills(fleet.ports, NOW)
    assert await fleet.begun("verify_backup") == ["acme"]


async def test_the_figures_of_the_fleet(fleet: Fleet) -> None:
    now = await fleet.value("SELECT clock_timestamp()")
    acme, beta = await fleet.add("acme", since=now), await fleet.add("beta", since=now)
    calm = await fleet.add("calm", tier="enterprise", since=now)
    for tenant_id in (acme, beta, calm):
        await fleet.due(tenant_id, now + HOUR)
    await fleet.due(beta, now - HOUR)
    backup = await fleet.backup(acme, now - 30 * MINUTE)
    await fleet.prove(acme, backup, now - 20 * MINUTE)
    await fleet.backup(beta, now - 90 * MINUTE)
    await fleet.backup(beta, now - 80 * MINUTE, state="failed")
    await fleet.change("UPDATE backup_turns SET breached_at = $2 WHERE tenant_id = $1", beta, now)
    async with fleet.ports.catalog.connection() as db:
        figures = await backup_watch.figures(db)
    assert figures.backups == {"complete": 2, "failed": 1}
    tiers = {one.tier: one for one in figures.tiers}
    standard, enterprise, dedicated = (
        tiers["standard"],
        tiers["enterprise"],
        tiers["dedicated"],
    )
    assert (standard.tenants, standard.breached, standard.waiting, standard.undrilled) == (
        *(2, 1, 1),
        1,
    )
    assert (enterprise.tenants, enterprise.undrilled, enterprise.oldest_backup) == (1, 1, None)
    assert dedicated.tenants == dedicated.undrilled == 0
    assert standard.oldest_backup is not None
    assert standard.oldest_drill is not None
    assert 90 * 60 <= standard.oldest_backup < 91 * 60
    assert 20 * 60 <= standard.oldest_drill < 21 * 60
