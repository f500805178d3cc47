"""Schedules over HTTP: set, show, clear, the tiers, refusals, and the metrics."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from control_plane.config import Settings
from control_plane.domain.keys import Role
from control_plane.domain.names import show
from control_plane.services.keys import NewKey, create_key
from tests.integration.api.test_problems import fields, problem
from tests.integration.api.world import running_api
from tests.integration.schedules.conftest import new_fleet
from tests.integration.schedules.fleet import DAY, HOUR, MINUTE, OPERATOR, Fleet
from tests.integration.tenant_server.postgres_fixture import TenantServer

WEEKLY = {"cron": "0 3 * * 0", "timezone": "Europe/Berlin", "rpo_minutes": 12_000}
STANDARD = {
    "cron": "0 2 * * *",
    "timezone": "UTC",
    "jitter_minutes": 120,
    "rpo_minutes": 1800,
    "drill_days": 30,
    "keep_last": 3,
    "keep_daily": 7,
    "keep_weekly": 5,
    "keep_monthly": 12,
    "keep_yearly": 0,
}


@pytest.fixture(scope="module")
async def served(
    migrated: Settings, schedules_postgres: TenantServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Fleet, str]]:
    """A fleet and the URL of an API on its catalog and its store."""
    directory = tmp_path_factory.mktemp("store")
    async with new_fleet(migrated, schedules_postgres, directory) as fleet:
        environment = {"TENANTRY_BACKUP_STORE": f"file://{directory}"}
        with running_api(fleet.ports.settings, environment) as (url, _):
            yield fleet, url


@pytest.fixture(scope="module")
def fleet(served: tuple[Fleet, str]) -> Fleet:
    return served[0]


async def client(fleet: Fleet, url: str, role: Role) -> httpx.AsyncClient:
    async with fleet.ports.catalog.transaction() as db:
        token = (await create_key(db, OPERATOR, NewKey(role, (role,)))).plain_token
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
async def api(served: tuple[Fleet, str]) -> AsyncIterator[httpx.AsyncClient]:
    """What an operator asks with."""
    async with await client(*served, "operator") as made:
        yield made


@pytest.fixture
async def acme(fleet: Fleet) -> UUID:
    """A tenant that was made a minute ago; no other follows a schedule of its own."""
    await fleet.change("DELETE FROM backup_schedules")
    await fleet.change("DELETE FROM backup_turns")
    await fleet.change("UPDATE tenants SET slug = 'former-' || left(md5(id::text), 8)")
    now = await fleet.value("SELECT clock_timestamp()")
    return await fleet.add("acme", since=now - MINUTE)


PATH = "/v1/tenants/acme/backup-schedule"


async def shown(api: httpx.AsyncClient, path: str = PATH) -> dict[str, Any]:
    answer = await api.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def events(fleet: Fleet, tenant_id: UUID) -> list[str]:
    rows = await fleet.rows(
        """SELECT action FROM audit_events WHERE tenant_id = $1 AND action LIKE 'schedule.%'
           ORDER BY seq""",
        tenant_id,
    )
    return [row["action"] for row in rows]


@pytest.mark.usefixtures("acme")
async def test_without_one_of_its_own_a_tenant_follows_its_tier(api: httpx.AsyncClient) -> None:
    found = await shown(api)
    assert (found["tenant"], found["tier"], found["source"]) == ("acme", "standard", "tier")
    assert {name: found[name] for name in STANDARD} == STANDARD
    assert found["changed_by"] == "system"
    assert found["next_slot_at"].endswith("T02:00:00Z")
    assert found["next_slot_at"] <= found["next_due_at"]
    assert (found["newest_backup"], found["newest_drill"], found["note"]) == (None, None, None)
    assert found["rpo"] == {"state": "unwatched", "covered_until": None, "breached_at": None}


async def test_a_schedule_is_set_shown_and_cleared(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    now = await fleet.value("SELECT clock_timestamp()")
    await fleet.due(acme, now + HOUR)
    answer = await api.put(PATH, json=WEEKLY)
    assert answer.status_code == 200, answer.text
    found = await shown(api)
    assert answer.json() == found
    assert {name: found[name] for name in STANDARD} == STANDARD | WEEKLY
    assert (found["source"], found["changed_by"]) == ("tenant", "operator")
    slot, _ = await fleet.turn(acme)
    assert f"{slot:%w}" == "0"
    assert slot.isoformat().replace("+00:00", "Z") == found["next_slot_at"]
    assert await events(fleet, acme) == ["schedule.set"]
    # What is left out now is as in the tier again.
    await api.put(PATH, json={"cron": "0  4 * *   *"})
    found = await shown(api)
    assert {name: found[name] for name in STANDARD} == STANDARD | {"cron": "0 4 * * *"}
    for _ in range(2):
        cleared = await api.delete(PATH)
        assert (cleared.status_code, cleared.json()["source"]) == (200, "tier")
        assert {name: cleared.json()[name] for name in STANDARD} == STANDARD
    assert (await fleet.turn(acme))[0].hour == 2
    assert await events(fleet, acme) == ["schedule.set", "schedule.set", "schedule.clear"]


async def test_a_repeat_gets_the_first_answer(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = [await api.put(PATH, json=WEEKLY, headers=headers) for _ in range(2)]
    assert first.json() == second.json()
    assert await events(fleet, acme) == ["schedule.set"]


async def test_a_dry_run_tells_what_would_be_pruned_and_changes_nothing(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    now = await fleet.value("SELECT clock_timestamp()")
    for days in range(4):
        await fleet.backup(acme, now - days * DAY)
    keep_one = {f"keep_{name}": 0 for name in ("daily", "weekly", "monthly")} | {"keep_last": 1}
    answer = await api.put(f"{PATH}?dry_run=true", json={"cron": "0 2 * * *", **keep_one})
    preview = answer.json()
    assert (answer.status_code, preview["source"]) == (200, "tenant")
    assert (preview["stored_backups"], preview["prunable_backups"]) == (4, 3)
    found = await shown(api)
    assert (found["source"], found["prunable_backups"]) == ("tier", 0)
    assert await events(fleet, acme) == []
    cleared = await api.delete(f"{PATH}?dry_run=true")
    assert (cleared.status_code, cleared.json()) == (200, found)


async def test_backups_proofs_and_the_rpo_are_shown(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    now = await fleet.value("SELECT clock_timestamp()")
    await fleet.due(acme, now + HOUR)
    proven = await fleet.backup(acme, now - 3 * DAY)
    await fleet.prove(acme, proven, now - 2 * DAY)
    newest = await fleet.backup(acme, now - HOUR)
    found = await shown(api)
    assert found["newest_backup"]["id"] == show("bk", newest)
    assert found["newest_backup"]["verified_at"] is None
    assert found["newest_drill"]["backup"] == show("bk", proven)
    assert (found["newest_drill"]["cause"], found["newest_drill"]["seconds"]) == ("rotation", 0.0)
    assert found["rpo"]["state"] == "met"
    assert found["rpo"]["covered_until"] == found["newest_backup"]["snapshot_at"]
    await fleet.change("UPDATE backups SET snapshot_at = $1", now - 40 * DAY)
    await fleet.change("UPDATE backup_turns SET breached_at = $1", now)
    breached = (await shown(api))["rpo"]
    assert breached["state"] == "breached"
    assert breached["breached_at"] is not None


async def test_who_is_archived_is_not_backed_up(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    await fleet.change(
        "UPDATE tenants SET state = 'archived', archive_backup_id = id WHERE id = $1", acme
    )
    found = await shown(api)
    assert (found["next_slot_at"], found["rpo"]["state"]) == (None, "unwatched")
    assert found["note"] == "acme is archived; who is active or suspended is backed up"


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"cron": "every night"}, "cron", 'use five fields, such as "0 2 * * *"'),
        ({"cron": "0 2 * * *", "timezone": "Berlin"}, "timezone", "there is no time zone"),
        ({"cron": "0 3 * * 0"}, "rpo_minutes", "use at least 10200, or a denser cron"),
        ({"cron": "0 2 * * *", "keep_last": 0}, "keep_last", "at least 1"),
        ({"cron": "0 2 * * *", "keep": 1}, "keep", "there is no such field"),
        ({}, "cron", "is required"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    api: httpx.AsyncClient, body: dict[str, Any], field: str, words: str
) -> None:
    for path in (PATH, f"{PATH}?dry_run=true", "/v1/backup-policies/standard"):
        document = problem(await api.put(path, json=body), 422, "invalid")
        assert fields(document) == [field]
        assert words in document["detail"]
    assert (await shown(api))["source"] == "tier"


async def test_what_is_not_there(api: httpx.AsyncClient) -> None:
    path = "/v1/tenants/nobody/backup-schedule"
    for answer in (
        await api.get(path),
        await api.put(path, json=WEEKLY),
        await api.delete(path),
        await api.put("/v1/backup-policies/gold", json=WEEKLY),
    ):
        problem(answer, 404, "not_found")


async def test_a_deleted_tenant_gets_no_schedule(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    await fleet.change("ALTER TABLE tenants DISABLE TRIGGER tenants_legal_change")
    await fleet.change("UPDATE tenants SET state = 'deleted' WHERE id = $1", acme)
    path = f"/v1/tenants/{show('tn', acme)}/backup-schedule"
    problem(await api.put(path, json=WEEKLY), 409, "wrong_state")
    problem(await api.delete(path), 409, "wrong_state")
    assert (await shown(api, path))["note"].startswith("acme is deleted")


async def test_the_policy_of_a_tier_is_changed_for_all_who_follow_it(
    api: httpx.AsyncClient, fleet: Fleet, acme: UUID
) -> None:
    now = await fleet.value("SELECT clock_timestamp()")
    calm, late = await fleet.add("calm", tier="enterprise"), await fleet.add("late")
    for tenant_id in (acme, calm):
        await fleet.due(tenant_id, now + HOUR)
    await fleet.due(late, now - HOUR)
    wanted = {"cron": "15 5 * * *", "timezone": "America/New_York", "keep_daily": 9}
    preview = await api.put("/v1/backup-policies/standard?dry_run=true", json=wanted)
    assert (preview.status_code, preview.json()["cron"]) == (200, wanted["cron"])
    policies = (await shown(api, "/v1/backup-policies"))["items"]
    assert {name: policies[0][name] for name in STANDARD} == STANDARD
    answer = await api.put("/v1/backup-policies/standard", json=wanted)
    assert answer.status_code == 200, answer.text
    listed = {one["tier"]: one for one in (await shown(api, "/v1/backup-policies"))["items"]}
    assert list(listed) == ["standard", "enterprise", "dedicated"]
    assert listed["standard"] == answer.json()
    assert {name: listed["standard"][name] for name in STANDARD} == STANDARD | wanted
    assert listed["standard"]["changed_by"] == "operator"
    assert (await fleet.turn(acme))[0].minute == 15
    assert await fleet.turn(calm) == (now + HOUR, now + HOUR)
    assert await fleet.turn(late) == (now - HOUR, now - HOUR)
    restored = await api.put("/v1/backup-policies/standard", json=STANDARD)
    assert restored.status_code == 200
    assert await fleet.audited("schedule.set_tier") == [("schedule.set_tier", "standard")] * 2


@pytest.mark.usefixtures("acme")
async def test_who_may_only_look_changes_nothing(served: tuple[Fleet, str]) -> None:
    async with await client(*served, "auditor") as auditor:
        assert (await auditor.get(PATH)).status_code == 200
        assert (await auditor.get("/v1/backup-policies")).status_code == 200
        problem(await auditor.put(PATH, json=WEEKLY), 403, "denied")
        problem(await auditor.delete(PATH), 403, "denied")
        problem(await auditor.put("/v1/backup-policies/standard", json=WEEKLY), 403, "denied")


async def test_the_metrics_tell_of_the_fleet_and_name_nobody(
    migrated: Settings, schedules_postgres: TenantServer, tmp_path: Path
) -> None:
    async with new_fleet(migrated, schedules_postgres, tmp_path) as fleet:
        now = await fleet.value("SELECT clock_timestamp()")
        acme = await fleet.add("acme", since=now - 40 * HOUR)
        await fleet.due(acme, now)
        await fleet.backup(acme, now - 39 * HOUR)
        await fleet.change("UPDATE backup_turns SET breached_at = clock_timestamp()")
        with running_api(fleet.ports.settings, {}) as (url, _):
            async with httpx.AsyncClient() as anybody:
                await anybody.get(f"{url}/health/live")
                text = (await anybody.get(f"{url}/metrics")).text
    assert "acme" not in text
    assert text.endswith("\n# EOF\n")
    assert text.count("# EOF") == 1
    assert "tenantry_requests_total{" in text
    lines = set(text.splitlines())
    assert {
        'tenantry_backups{state="complete"} 1.0',
        'tenantry_backups{state="failed"} 0.0',
        'tenantry_backups{state="running"} 0.0',
        'tenantry_backup_tenants{tier="standard"} 1.0',
        'tenantry_backup_rpo_breached_tenants{tier="standard"} 1.0',
        'tenantry_backup_rpo_breached_tenants{tier="enterprise"} 0.0',
        'tenantry_backup_waiting_tenants{tier="standard"} 1.0',
        'tenantry_drill_undrilled_tenants{tier="standard"} 1.0',
    } <= lines
    age = re.search(r'tenantry_backup_oldest_seconds\{tier="standard"\} (\S+)', text)
    assert age is not None
    assert float(age[1]) >= 39 * 3600
    assert 'tenantry_drill_oldest_seconds{tier="standard"}' not in text
    assert "\ntenantry_backup_planning_seconds " in text
