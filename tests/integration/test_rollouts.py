"""Rollouts on the whole stack: one tenant, waves, a halt and its end, and who is in the way."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator

import pytest

from deploy.local.stack import Stack
from tests.conftest import Cli
from tests.driver import Driver, fresh_slug
from tests.laboratory import Laboratory

LOCKED = "LOCK TABLE lab.sample IN ACCESS SHARE MODE"


@pytest.fixture
async def lab(stack: Stack, driver: Driver) -> AsyncIterator[Laboratory]:
    laboratory = Laboratory(stack, driver)
    yield laboratory
    await laboratory.leave()


async def test_one_tenant_is_migrated_by_its_own_migrator(lab: Laboratory, cli: Cli) -> None:
    (slug,) = await lab.tenants(1, "single")
    wanted = lab.add_column()
    ended = await asyncio.to_thread(cli, "migrate", slug, "--wait")
    assert ended.code == 0, ended.stderr
    assert await lab.revisions([slug]) == {wanted}
    async with lab.inside(slug) as connection:
        owner = await connection.fetchval(
            "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'lab.sample'::regclass"
        )
        assert owner.endswith("_owner")
        open_migrators = await connection.fetchval(
            "SELECT count(*) FROM pg_roles WHERE rolname ~ '_mig$' AND rolcanlogin"
        )
        assert open_migrators == 0
    (operation,) = [o for o in await lab.driver.operations(tenant=slug) if o["kind"] == "migrate"]
    assert operation["steps"][0]["detail"].startswith("tenantry:op_")
    again = await asyncio.to_thread(cli, "migrate", slug, "--wait")
    assert again.code == 0, again.stderr


async def test_canary_and_waves_reach_everyone_and_newcomers_need_nothing(
    lab: Laboratory,
) -> None:
    slugs = await lab.tenants(9, "waves")
    wanted = lab.add_column()
    begun = await lab.begin("waves", canary=1, waves=["25%", "100%"])
    newcomer = (await lab.tenants(1, "waves"))[0]
    ended = await lab.finish(begun)
    assert ended["state"] == "succeeded"
    assert await lab.revisions([*slugs, newcomer]) == {wanted}
    targets = await lab.targets(begun)
    assert {target["state"] for target in targets.values()} == {"done"}
    waves = [target["wave"] for target in targets.values()]
    assert (waves.count(0), waves.count(1), waves.count(2)) == (1, 2, len(slugs) - 3)
    by_wave = sorted((t["finished_at"], t["wave"]) for t in targets.values() if t["wave"] < 3)
    assert [wave for _, wave in by_wave] == sorted(wave for _, wave in by_wave)
    for slug in slugs:
        kinds = [o["kind"] for o in await lab.driver.operations(tenant=slug)]
        assert kinds == ["migrate", "provision"]


async def test_nothing_to_do_is_done_at_once(lab: Laboratory) -> None:
    begun = await lab.begin("nobody-has-this-label")
    assert (await lab.finish(begun, seconds=10))["state"] == "succeeded"
    assert await lab.targets(begun) == {}


async def test_a_revision_that_fails_on_three_of_a_hundred_halts_and_finishes_after_the_fix(
    lab: Laboratory, cli: Cli
) -> None:
    slugs = await lab.tenants(100, "hundred")
    broken = slugs[20::30]
    for slug in broken:
        async with lab.inside(slug) as connection:
            await connection.execute(
                "INSERT INTO lab.sample (id, taken_at, kind) "
                "VALUES (gen_random_uuid(), now(), 'unknown')"
            )
    before = await lab.revisions(broken)
    wanted = lab.add(
        "ALTER TABLE lab.sample ADD CONSTRAINT kind_is_known CHECK (kind <> 'unknown')",
        extra='lint_overrides = {"constraint-not-valid": "every laboratory table is small"}',
    )
    begun = await lab.begin("hundred", canary=2, waves=["100%"], halt_at="2.5%")
    halted = await lab.until(begun, "halted")
    assert "3 of 98 tenants failed" in halted["reason"]
    targets = await lab.targets(begun, state="failed")
    assert sorted(targets) == sorted(broken)
    for target in targets.values():
        assert target["error"]["code"] == "revision_failed"
        assert "23514" in target["error"]["message"]
        assert "unknown" not in target["error"]["message"]
    assert await lab.revisions(broken) == before
    for slug in broken:
        async with lab.inside(slug) as connection:
            await connection.execute("UPDATE lab.sample SET kind = 'blood'")
    resumed = await asyncio.to_thread(cli, "rollout", "resume", begun["subject"], "--wait")
    assert resumed.code == 0, resumed.stderr
    assert await lab.revisions(slugs) == {wanted}
    await lab.driver.assert_clean()
    # Databases of other tests, of another template, were changed by hand.
    drift = await asyncio.to_thread(cli, "drift", "--json")
    groups = json.loads(drift.stdout)["groups"]
    assert [g for g in groups if g["template"] == "lab" and g["matches"] is not True] == []
    assert [g for g in groups if g["matches"] is None] == []


async def test_killing_every_worker_in_the_middle_costs_only_time(
    lab: Laboratory, stack: Stack
) -> None:
    slugs = await lab.tenants(30, "killed")
    wanted = lab.add("SELECT pg_sleep(0.2)", "ALTER TABLE lab.sample ADD COLUMN killed text")
    begun = await lab.begin("killed", canary=1, waves=["100%"], per_server=2)
    for _ in range(2):
        done = len(await lab.targets(begun, state="done"))
        async with asyncio.timeout(60):
            while len(await lab.targets(begun, state="done")) < done + 4:
                await asyncio.sleep(0.05)
        for name in ("worker-control", "worker-transfer"):
            await asyncio.to_thread(stack.kill, name, signal.SIGKILL)
    ended = await lab.finish(begun)
    assert ended["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}
    await lab.driver.assert_clean()


async def test_a_tenant_in_another_operation_is_waited_for(lab: Laboratory) -> None:
    slugs = await lab.tenants(3, "busy")
    wanted = lab.add_column()
    lab.driver.arm("rotate", "verify_login", "before", slugs[1], "sigstop")
    rotation = await lab.driver.begin(slugs[1], "rotate", grace_seconds=600)
    begun = await lab.begin("busy", canary=0)
    await lab.driver.finish(rotation, seconds=30)
    assert (await lab.finish(begun))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}


async def test_locks_that_are_not_let_go_halt_and_the_queries_behind_them_do_not_wait(
    lab: Laboratory,
) -> None:
    slugs = await lab.tenants(4, "locked")
    wanted = lab.add_column()
    async with lab.inside(slugs[2]) as one, lab.inside(slugs[3]) as two:
        held = [connection.transaction() for connection in (one, two)]
        for transaction, connection in zip(held, (one, two), strict=True):
            await transaction.start()
            await connection.execute(LOCKED)
        begun = await lab.begin("locked", canary=0, waves=["100%"], lock_timeout=0.3)
        halted = await lab.until(begun, "halted", seconds=30)
        assert "wait for locks" in halted["reason"]
        async with lab.inside(slugs[2]) as other, asyncio.timeout(20):
            await other.fetch("SELECT FROM lab.sample")
        for transaction in held:
            await transaction.rollback()
    await lab.driver.call("POST", f"/v1/rollouts/{begun['subject']}/resume")
    assert (await lab.finish(begun))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}


async def test_pause_resume_and_abort(lab: Laboratory) -> None:
    slugs = await lab.tenants(12, "paused")
    wanted = lab.add("SELECT pg_sleep(0.3)", "ALTER TABLE lab.sample ADD COLUMN paused text")
    begun = await lab.begin("paused", canary=1, waves=["100%"], per_server=1)
    place = f"/v1/rollouts/{begun['subject']}"
    await lab.driver.call("POST", f"{place}/pause")
    refused = await lab.driver.api.post("/v1/rollouts", json={"template": "lab"})
    assert refused.status_code == 409
    async with asyncio.timeout(20):
        while await lab.targets(begun, state="running"):
            await asyncio.sleep(0.1)
    stood = len(await lab.targets(begun, state="done"))
    await asyncio.sleep(1)
    assert len(await lab.targets(begun, state="done")) == stood < len(slugs)
    await lab.driver.call("POST", f"{place}/resume")
    async with asyncio.timeout(30):
        while len(await lab.targets(begun, state="done")) <= stood:
            await asyncio.sleep(0.05)
    await lab.driver.call("POST", f"{place}/abort")
    ended = await lab.driver.over(begun)
    assert ended["state"] == "cancelled"
    assert (await lab.until(begun, "aborted"))["reason"].startswith("aborted by")
    left = [slug for slug, t in (await lab.targets(begun)).items() if t["state"] == "skipped"]
    assert left
    await lab.driver.settle()
    assert wanted not in await lab.revisions(left)
    again = await lab.begin("paused")
    assert (await lab.finish(again))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}


async def test_a_template_that_cannot_be_built_stops_before_the_first_tenant(
    lab: Laboratory,
) -> None:
    slugs = await lab.tenants(2, "empty")
    before = await lab.revisions(slugs)
    broken = lab.add("ALTER TABLE lab.no_such_table ADD COLUMN x text")
    try:
        begun = await lab.begin("empty")
        ended = await lab.driver.over(begun)
        assert ended["state"] == "failed"
        assert "no_such_table" in ended["error"]["message"]
        assert (await lab.show(begun))["state"] == "incomplete"
        assert await lab.revisions(slugs) == before
    finally:
        lab.remove(broken)
    wanted = lab.add_column()
    assert (await lab.finish(await lab.begin("empty")))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}


async def test_a_dangerous_revision_is_refused_with_its_remedy(lab: Laboratory, cli: Cli) -> None:
    await lab.tenants(1, "danger")
    dangerous = lab.add("CREATE INDEX by_kind ON lab.sample (kind)")
    try:
        refused = await lab.driver.api.post("/v1/rollouts", json={"template": "lab"})
        assert refused.status_code == 422
        assert "CONCURRENTLY" in refused.text
        shown = await asyncio.to_thread(
            cli, "rollout", "start", "--template", "lab", "--select", "label.group=danger",
            "--dry-run",
        )  # fmt: skip
        assert shown.code == 1
        assert "CREATE INDEX by_kind" in shown.stdout
    finally:
        lab.remove(dangerous)


async def test_an_index_over_the_fleet_is_made_outside_of_transactions(lab: Laboratory) -> None:
    slugs = await lab.tenants(4, "index")
    wanted = lab.add(
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_kind ON lab.sample (kind)", outside=True
    )
    async with lab.inside(slugs[0]) as connection:
        await connection.execute("CREATE INDEX by_kind ON lab.sample (kind)")
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'lab.by_kind'::regclass"
        )
    assert (await lab.finish(await lab.begin("index")))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}
    await lab.driver.assert_clean()


async def test_a_revision_that_asks_the_database_is_run_by_alembic(lab: Laboratory) -> None:
    slugs = await lab.tenants(3, "python")
    wanted = lab.add(
        "SELECT 1", extra='lint_overrides = {"runs-python": "it counts the samples first"}'
    )
    path = lab.directory / "versions" / f"{wanted}.py"
    path.write_text(
        path.read_text().replace(
            "    op.execute('SELECT 1')",
            "    rows = op.get_bind().exec_driver_sql('SELECT count(*) FROM lab.sample')\n"
            "    op.execute(f'CREATE TABLE lab.counted_{rows.scalar_one()} (id uuid)')",
        )
    )
    assert (await lab.finish(await lab.begin("python")))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}


async def test_a_database_that_was_changed_by_hand_is_not_called_migrated(
    lab: Laboratory, cli: Cli
) -> None:
    slugs = await lab.tenants(3, "drifted")
    async with lab.inside(slugs[1]) as connection:
        await connection.execute("ALTER TABLE lab.sample ADD COLUMN by_hand text")
    wanted = lab.add_column()
    begun = await lab.begin("drifted", canary=0, waves=["100%"], halt_at="50%")
    ended = await lab.driver.over(begun)
    assert ended["state"] == "failed"
    assert ended["error"]["code"] == "rollout_incomplete"
    (target,) = (await lab.targets(begun, state="failed")).values()
    assert target["tenant"] == slugs[1]
    assert target["error"]["code"] == "schema_mismatch"
    shown = await asyncio.to_thread(cli, "drift", slugs[1])
    assert shown.code == 1
    assert "by_hand" in shown.stdout
    async with lab.inside(slugs[1]) as connection:
        await connection.execute("ALTER TABLE lab.sample DROP COLUMN by_hand")
    await lab.driver.call("POST", f"/v1/rollouts/{begun['subject']}/resume")
    assert (await lab.finish(begun))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}
    assert (await asyncio.to_thread(cli, "drift", slugs[1])).code == 0


async def test_a_new_file_in_the_template_needs_no_restart(lab: Laboratory) -> None:
    wanted = lab.add_column()
    slug = fresh_slug("lab-fresh")
    async with asyncio.timeout(30):
        while True:
            slug = fresh_slug("lab-fresh")
            tenant = await lab.driver.create(slug, template="lab")
            if tenant["schema_revision"] == wanted:
                return
            await asyncio.sleep(0.5)


async def test_a_canary_with_other_privileges_halts_and_the_catalog_knows_its_revision(
    lab: Laboratory,
) -> None:
    """The mark does not cover privileges: the canary is found after its commit."""
    slugs = await lab.tenants(2, "granted")
    for slug in slugs:
        async with lab.inside(slug) as connection:
            await connection.execute("GRANT SELECT ON lab.sample TO PUBLIC")
    wanted = lab.add_column()
    begun = await lab.begin("granted", canary=1)
    halted = await lab.until(begun, "halted", seconds=30)
    assert "the canary" in halted["reason"]
    (target,) = (await lab.targets(begun, state="failed")).values()
    assert target["error"]["code"] == "schema_mismatch"
    assert await lab.revisions([target["tenant"]]) == {wanted}
    for slug in slugs:
        async with lab.inside(slug) as connection:
            await connection.execute("REVOKE SELECT ON lab.sample FROM PUBLIC")
    await lab.driver.call("POST", f"/v1/rollouts/{begun['subject']}/resume")
    assert (await lab.finish(begun))["state"] == "succeeded"
    assert await lab.revisions(slugs) == {wanted}
