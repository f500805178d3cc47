"""Backups, drills and restores over HTTP: what is accepted, what is refused and how it is told."""

import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from control_plane.adapters import clock
from control_plane.catalog import (
    backup_schedules,
    backups,
    databases,
    leases,
    replacements,
    tenants,
)
from control_plane.catalog.audit import Caller
from control_plane.catalog.backups import Drill, Stored
from control_plane.catalog.leases import Problem
from control_plane.config import Settings
from control_plane.domain.errors import NotFound
from control_plane.domain.keys import Principal
from control_plane.domain.names import parse, show
from control_plane.services.backups import find_backup
from tests.integration.api.conftest import OTHER, OWN
from tests.integration.api.test_operations import walk
from tests.integration.api.test_problems import counts, fields, problem
from tests.integration.api.world import World, running_api

UNKNOWN = "bk_" + "0" * 26
HASH = hashlib.sha256(b"content").hexdigest()


@pytest.fixture(scope="module")
def store_process(api_settings: Settings, world: World, tmp_path_factory: Any) -> Iterator[str]:
    """A second API on the same catalog, which has a place for backups."""
    del world
    store: Path = tmp_path_factory.mktemp("store")
    given = {"TENANTRY_BACKUP_STORE": store.as_uri(), "TENANTRY_RATE_LIMIT_PER_MINUTE": "1000000"}
    with running_api(api_settings, given) as (url, _):
        yield url


@pytest.fixture
async def stored(world: World, store_process: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API that has a store; it may do everything."""
    token = {"Authorization": f"Bearer {world.tokens['admin']}"}
    async with httpx.AsyncClient(base_url=store_process, headers=token, timeout=30) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, status: int = 202, **body: Any) -> Any:
    answer = await client.post(f"/v1{path}", json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()


async def newest_backup(client: httpx.AsyncClient, slug: str) -> str:
    page = (await client.get(f"/v1/tenants/{slug}/backups")).json()
    return str(page["items"][0]["id"])


def key_of(backup: str) -> UUID:
    found = parse("bk", backup)
    assert found is not None
    return found


async def make_backup(world: World, client: httpx.AsyncClient, slug: str, **changes: Any) -> str:
    """A complete backup, as far as the catalog knows."""
    operation = await post(client, f"/tenants/{slug}/backups")
    await world.work_off(operation["id"])
    backup = await newest_backup(client, slug)
    stored = Stored(
        key_version=1,
        object_key=f"backups/{backup}/data.1",
        manifest_key=f"backups/{backup}/manifest",
        stored_bytes=1_000,
        plain_bytes=5_000,
        sha256=hashlib.sha256(b"object").digest(),
        tables=3,
        rows=42,
        template="clinic",
        schema_revision="0011",
        server_version=150_020,
        snapshot_at=clock.now(),
    )
    async with world.ports.catalog.transaction() as db:
        await backups.complete(db, key_of(backup), msgspec.structs.replace(stored, **changes))
    return backup


async def fail_backup(world: World, client: httpx.AsyncClient, slug: str, why: str) -> str:
    operation = await post(client, f"/tenants/{slug}/backups")
    backup = await newest_backup(client, slug)
    _, lease = await world.claim(operation["id"])
    async with world.ports.catalog.transaction() as db:
        await leases.finish(db, lease, "failed", Problem(0, "disk_full", why))
        await backups.fail_with_operation(db, key_of(backup))
    return backup


async def make_drill(world: World, backup: str, finished_at: dt.datetime, **changes: Any) -> str:
    async with world.ports.catalog.transaction() as db:
        of = await backups.get(db, key_of(backup))
        drill = Drill(
            id=clock.new_id(),
            backup_id=of.id,
            tenant_id=of.tenant_id,
            operation_id=None,
            server_id=of.server_id,
            cause="rotation",
            state="passed",
            started_at=finished_at - dt.timedelta(minutes=1),
            finished_at=finished_at,
            server_version=180_001,
            download_seconds=1.5,
            load_seconds=11.0,
            compare_seconds=2.0,
            tables=3,
            rows=42,
            content_hash=HASH,
        )
        drill = msgspec.structs.replace(drill, **changes)
        await backups.record_drill(db, drill)
    return show("dr", drill.id)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tenants/own-clinic/backups", None),
        ("/backups/{backup}/verifications", None),
        ("/tenants/own-clinic/restores", {"target": "in_place"}),
        ("/tenants/own-clinic/restores", {"target": {"slug": "own-again"}}),
    ],
)
async def test_without_a_store_the_setting_is_named(
    world: World, admin: httpx.AsyncClient, stored: httpx.AsyncClient, path: str, body: Any
) -> None:
    backup = await make_backup(world, stored, OWN)
    before = await counts(world)
    answer = await admin.post("/v1" + path.replace("{backup}", backup), json=body)
    assert "TENANTRY_BACKUP_STORE" in problem(answer, 409, "conflict")["detail"]
    assert await counts(world) == before
    assert (await admin.get(f"/v1/backups/{backup}")).status_code == 200


async def test_a_backup_is_accepted_once_per_key(world: World, stored: httpx.AsyncClient) -> None:
    await world.active_tenant("backed-up-once")
    path, key = "/v1/tenants/backed-up-once/backups", {"Idempotency-Key": "nightly"}
    first = await stored.post(path, headers=key)
    again = await stored.post(path, headers=key)
    assert (first.status_code, first.text) == (202, again.text)
    assert first.headers["location"] == f"/v1/operations/{first.json()['id']}"
    assert (first.json()["kind"], first.json()["tenant"]) == ("backup", "backed-up-once")
    (listed,) = (await stored.get(path)).json()["items"]
    assert (listed["state"], listed["cause"]) == ("running", "manual")
    assert (listed["operation"], listed["server"]) == (first.json()["id"], "pg-a")
    assert listed["sha256"] is listed["snapshot_at"] is listed["postgres_major"] is None
    busy = problem(await stored.post(path), 409, "operation_in_progress")
    assert busy["operation"] == first.json()["id"]


async def test_a_backup_is_shown_with_its_drills(world: World, stored: httpx.AsyncClient) -> None:
    await world.active_tenant("drilled-clinic")
    backup = await make_backup(world, stored, "drilled-clinic")
    ended = clock.now() - dt.timedelta(hours=1)
    passed = await make_drill(world, backup, ended)
    blank = dict.fromkeys(("download_seconds", "load_seconds", "compare_seconds", "content_hash"))
    failed = await make_drill(world, backup, clock.now(), state="failed", problem="torn", **blank)

    shown = (await stored.get(f"/v1/backups/{backup}")).json()

    assert (shown["id"], shown["tenant"], shown["state"]) == (backup, "drilled-clinic", "complete")
    assert shown["sha256"] == hashlib.sha256(b"object").hexdigest()
    assert (shown["rows"], shown["postgres_major"]) == (42, 15)
    assert dt.datetime.fromisoformat(shown["verified_at"]) == ended
    assert shown["verified_at"].endswith("Z")
    first, second = shown["drills"]
    assert (first["id"], first["state"], first["rto_seconds"]) == (failed, "failed", None)
    assert (second["id"], second["rto_seconds"], second["content_hash"]) == (passed, 12.5, HASH)
    assert (second["backup"], second["server"]) == (backup, "pg-a")
    assert second["postgres_major"] == 18
    ledger = (await stored.get("/v1/drills", params={"tenant": "drilled-clinic"})).json()["items"]
    assert ledger == shown["drills"]


async def test_pages_of_backups_and_drills(world: World, stored: httpx.AsyncClient) -> None:
    await world.active_tenant("paged-clinic")
    path = "/v1/tenants/paged-clinic/backups"
    made = [await make_backup(world, stored, "paged-clinic") for _ in range(7)]
    same = clock.now()
    drills = [await make_drill(world, backup, same) for backup in made]

    assert [one["id"] for one in await walk(stored, path)] == made[::-1]
    seen = [one["id"] for one in await walk(stored, "/v1/drills", tenant="paged-clinic")]
    assert seen == sorted(drills, reverse=True)
    of_all = [one["id"] for one in await walk(stored, "/v1/drills")]
    assert set(drills) <= set(of_all)
    assert len(of_all) == len(set(of_all))
    nobody = await stored.get("/v1/drills", params={"tenant": "nobody"})
    problem(nobody, 404, "not_found")
    problem(await stored.get("/v1/tenants/nobody/backups"), 404, "not_found")


@pytest.mark.parametrize("shown", [UNKNOWN, "nonsense", "tn_" + "0" * 26])
async def test_a_backup_that_is_not_there(stored: httpx.AsyncClient, shown: str) -> None:
    for answer in (
        await stored.get(f"/v1/backups/{shown}"),
        await stored.post(f"/v1/backups/{shown}/verifications"),
    ):
        assert problem(answer, 404, "not_found")["detail"] == f"there is no backup '{shown}'"


async def test_a_foreign_backup_is_as_good_as_none(world: World, stored: httpx.AsyncClient) -> None:
    foreign = await make_backup(world, stored, OTHER)
    said = []
    async with world.ports.catalog.connection() as db:
        own = (await tenants.find(db, OWN)).id
        caller = Caller(Principal(clock.new_id(), "own", frozenset({"app"}), own))
        for shown in (foreign, UNKNOWN):
            with pytest.raises(NotFound) as refused:
                await find_backup(db, caller, shown)
            said.append(refused.value.message.replace(shown, "IT"))
    assert said[0] == said[1]


async def test_only_a_complete_backup_is_restored(world: World, stored: httpx.AsyncClient) -> None:
    await world.active_tenant("torn-clinic")
    why = "no space left on pg-a"
    failed = await fail_backup(world, stored, "torn-clinic", why)
    body = {"backup_id": failed, "target": "in_place"}
    for path, sent in (
        (f"/v1/backups/{failed}/verifications", None),
        ("/v1/tenants/torn-clinic/restores", body),
        ("/v1/tenants/torn-clinic/restores", body | {"target": {"slug": "torn-again"}}),
    ):
        told = problem(await stored.post(path, json=sent), 409, "wrong_state")["detail"]
        assert f"{failed} is failed: {why}" in told
    without = await stored.post("/v1/tenants/torn-clinic/restores", json={"target": "in_place"})
    told = problem(without, 409, "wrong_state")["detail"]
    assert told.endswith(
        "torn-clinic has no complete backup; make one: tenantry backup torn-clinic"
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "target"),
        ({"target": "elsewhere"}, "target"),
        ({"target": 7}, "target"),
        ({"target": {"name": "nameless"}}, "slug"),
        ({"target": {"slug": "postgres"}}, "slug"),
        ({"target": {"slug": "good-slug", "tier": "gold"}}, "target.tier"),
        ({"target": {"slug": "good-slug", "server": "nowhere"}}, "server"),
        ({"target": {"slug": "good-slug"}, "server": "pg-a"}, "server"),
        ({"target": {"slug": "good-slug"}, "source_lost": True}, "source_lost"),
        ({"target": "in_place", "source_lost": True}, "server"),
        ({"target": "in_place", "backup_id": "yesterday"}, "backup_id"),
        ({"target": "in_place", "backup": UNKNOWN}, "backup"),
        ({"target": "in_place", "source_lost": "yes"}, "source_lost"),
    ],
)
async def test_a_restore_that_cannot_be_meant(
    world: World, stored: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    await make_backup(world, stored, OWN)
    before = await counts(world)
    answer = await stored.post(f"/v1/tenants/{OWN}/restores", json=body)
    told = problem(answer, 422, "invalid")
    assert fields(told) == [field]
    assert "Expected" not in answer.text
    assert await counts(world) == before


async def test_the_backup_of_another_tenant_is_no_source(
    world: World, stored: httpx.AsyncClient
) -> None:
    foreign = await make_backup(world, stored, OTHER)
    for target in ("in_place", {"slug": "stolen-clinic"}):
        body = {"backup_id": foreign, "target": target}
        answer = await stored.post(f"/v1/tenants/{OWN}/restores", json=body)
        assert fields(problem(answer, 422, "invalid")) == ["backup_id"]
    unknown = {"backup_id": UNKNOWN, "target": "in_place"}
    answer = await stored.post(f"/v1/tenants/{OWN}/restores", json=unknown)
    problem(answer, 404, "not_found")


async def test_a_slug_that_is_taken(world: World, stored: httpx.AsyncClient) -> None:
    await make_backup(world, stored, OWN)
    answer = await stored.post(f"/v1/tenants/{OWN}/restores", json={"target": {"slug": OTHER}})
    problem(answer, 409, "slug_taken")


async def test_a_dry_run_tells_the_plan_and_the_place(
    world: World, stored: httpx.AsyncClient
) -> None:
    backup = await make_backup(world, stored, OWN)
    before = await counts(world)
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        f"/tenants/{OWN}/backups": ("backup", {}),
        f"/backups/{backup}/verifications": ("verify_backup", {}),
        f"/tenants/{OWN}/restores": ("restore", {"target": "in_place"}),
    }
    for path, (kind, body) in asked.items():
        told = await post(stored, f"{path}?dry_run=true", 200, **body)
        assert (told["kind"], told["tenant"], told["placement"]) == (kind, OWN, None)
    beside: dict[str, Any] = {"target": {"slug": "beside-dry"}}
    told = await post(stored, f"/tenants/{OWN}/restores?dry_run=true", 200, **beside)
    assert (told["kind"], told["tenant"]) == ("restore_beside", "beside-dry")
    assert (told["placement"]["server"], told["placement"]["claimed"]) == ("pg-a", False)
    assert told["steps"][0] == "check_backup"
    assert await counts(world) == before


async def test_a_restore_beside_makes_a_tenant(world: World, stored: httpx.AsyncClient) -> None:
    await world.active_tenant("original")
    backup = await make_backup(world, stored, "original")
    body: dict[str, Any] = {"backup_id": backup, "target": {"slug": "copy-of-it", "name": "A Copy"}}
    operation = await post(stored, "/tenants/original/restores", **body)
    made = (await stored.get("/v1/tenants/copy-of-it")).json()
    assert (operation["kind"], operation["tenant"]) == ("restore_beside", "copy-of-it")
    assert (made["state"], made["name"], made["tier"]) == ("provisioning", "A Copy", "standard")
    assert made["operation"]["id"] == operation["id"]
    events = (await stored.get("/v1/audit", params={"tenant": "copy-of-it"})).json()["items"]
    assert events[0]["action"] == "tenant.restore_beside"
    assert (events[0]["facts"]["backup"], events[0]["facts"]["from"]) == (backup, "original")


async def test_a_restore_in_place_is_undone_once_there_is_something_to_go_back_to(
    world: World, stored: httpx.AsyncClient
) -> None:
    await world.active_tenant("gone-back")
    await make_backup(world, stored, "gone-back")
    path = "/tenants/gone-back/restores"
    nothing = await stored.post(f"/v1{path}/undo")
    assert "no earlier database" in problem(nothing, 409, "wrong_state")["detail"]
    restore = await post(stored, path, target="in_place")
    assert (restore["kind"], restore["tenant"]) == ("restore", "gone-back")
    problem(await stored.post(f"/v1{path}/undo"), 409, "wrong_state")
    await world.work_off(restore["id"])
    async with world.ports.catalog.transaction() as db:
        tenant = await tenants.find(db, "gone-back")
        live = await databases.primary(db, tenant.id)
        coming = next(
            d
            for d in await databases.on_server(db, live.server_id)
            if (d.tenant_id, d.purpose) == (tenant.id, "scratch")
        )
        await replacements.swap(db, live, coming, keep_days=7)
    told = await post(stored, f"{path}/undo?dry_run=true", 200)
    undo = await post(stored, f"{path}/undo")
    assert (told["kind"], undo["kind"], undo["tenant"]) == (*["restore_undo"] * 2, "gone-back")


async def age(world: World, slug: str, **ago: float) -> None:
    """Let the tenant be older than it is."""
    async with world.ports.catalog.transaction() as db:
        await db.execute(
            """UPDATE tenants SET activated_at = clock_timestamp() - $2::interval
               WHERE slug = $1""",
            slug,
            dt.timedelta(**ago),
        )


async def status_of(client: httpx.AsyncClient, slug: str, **query: str) -> dict[str, Any] | None:
    rows = await walk(client, "/v1/backup-status", **query)
    return next((row for row in rows if row["tenant"] == slug), None)


async def test_the_status_judges_each_tenant_by_its_own_policy(
    world: World, stored: httpx.AsyncClient
) -> None:
    slug = "guarded-clinic"
    await world.active_tenant(slug)
    await age(world, slug, hours=31)
    bare = await status_of(stored, slug, breached="true")
    assert bare is not None
    assert (bare["rpo_breached"], bare["drill_overdue"]) == (True, False)
    assert (bare["policy"], bare["rpo_minutes"], bare["drill_days"]) == ("tier", 1800, 30)
    assert 31 * 3600 <= bare["rpo_seconds"] < 32 * 3600
    assert bare["backup"] is bare["drill"] is bare["rto_seconds"] is bare["running"] is None

    taken = clock.now() - dt.timedelta(hours=3)
    backup = await make_backup(world, stored, slug, snapshot_at=taken)
    await make_drill(world, backup, clock.now() - dt.timedelta(days=5), load_seconds=99.0)
    drill = await make_drill(world, backup, clock.now() - dt.timedelta(days=4))
    failed = await fail_backup(world, stored, slug, "the dump broke off")
    kept = await status_of(stored, slug, breached="false")
    assert kept is not None
    assert (kept["backup"], kept["drill"], kept["rto_seconds"]) == (backup, drill, 12.5)
    assert 3 * 3600 <= kept["rpo_seconds"] < 4 * 3600
    assert 4 * 86400 <= kept["verified_seconds"] < 5 * 86400
    assert (kept["problem"], kept["running"]) == ("the dump broke off", None)
    assert failed != backup
    assert await status_of(stored, slug, breached="true") is None

    await own_policy(world, slug, rpo_minutes=60, drill_days=2)
    await post(stored, f"/tenants/{slug}/backups")
    strict = await status_of(stored, slug)
    assert strict is not None
    assert (strict["rpo_breached"], strict["drill_overdue"]) == (True, True)
    assert (strict["policy"], strict["rpo_minutes"]) == ("tenant", 60)
    assert (strict["running"], strict["problem"]) == (await newest_backup(stored, slug), None)


async def own_policy(world: World, slug: str, **changes: int) -> None:
    async with world.ports.catalog.transaction() as db:
        schedule = await backup_schedules.of_tenant(db, (await tenants.find(db, slug)).id)
        policy = msgspec.structs.replace(schedule.policy, **changes)
        await backup_schedules.put(db, (await tenants.find(db, slug)).id, policy, "test")


async def test_the_status_pages_by_slug_and_leaves_out_who_has_no_data(
    world: World, stored: httpx.AsyncClient
) -> None:
    await world.new_tenant("not-there-yet")
    slugs = [row["tenant"] for row in await walk(stored, "/v1/backup-status")]
    assert slugs == sorted(set(slugs))
    assert {OWN, OTHER} <= set(slugs)
    assert "not-there-yet" not in slugs
