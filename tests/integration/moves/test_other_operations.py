"""A move beside everything else that can be asked of a tenant, and what a way back allows."""

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from control_plane.domain.plans import PLANS, Kind
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.moves.faults import SECONDS, frozen, prove
from tests.integration.moves.test_move import begin, look, make  # noqa: F401 - a fixture
from tests.integration.moves.writers import writing

OTHERS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "migrate": ("POST", "/migrations", {}),
    "backup": ("POST", "/backups", {}),
    "restore": ("POST", "/restores", {"json": {"target": "in_place"}}),
    "archive": ("POST", "/archives", {}),
    "delete": ("DELETE", "", {}),
    "rotate": ("POST", "/rotations", {}),
    "suspend": ("POST", "/suspensions", {}),
    "reverse": ("POST", "/moves/reverse", {}),
    "finish": ("POST", "/moves/finish", {}),
    "move": ("POST", "/moves", {"json": {"server": "pg-b"}}),
}
CUT_THE_WAY_BACK = ("migrate", "restore", "archive", "delete", "move")


async def ask(driver: Driver, slug: str, other: str) -> Any:
    method, path, request = OTHERS[other]
    if other == "delete":
        request = {"params": {"confirm": slug}}
    return await driver.api.request(method, f"/v1/tenants/{slug}{path}", **request)


async def placed(driver: Driver) -> dict[str, int]:
    """How many places are taken on each server."""
    servers = (await driver.call("GET", "/v1/servers"))["items"]
    return {server["name"]: server["placed"] for server in servers}


async def test_nothing_else_begins_while_a_move_runs(
    driver: Driver,
    stack: Stack,
    catalog: Any,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "alone")
    await driver.back_up(slug)
    driver.arm("move", "copy_data", "rows.after", slug, "sigstop")
    async with writing(driver, slug, sessions=0) as fleet:
        operation = await begin(driver, slug)
        async with frozen(stack):
            before = await placed(driver)
            answers = {other: await ask(driver, slug, other) for other in OTHERS}
            for other, answer in answers.items():
                assert answer.status_code == 409, (other, answer.text)
                assert operation["id"] in answer.text, (other, answer.text)
            assert await placed(driver) == before
            count = "SELECT count(*) FROM operations WHERE subject = $1 AND kind = ANY ($2)"
            assert await catalog.fetchval(count, slug, [*OTHERS, "move_finish"]) == 2
        await driver.finish(operation, SECONDS)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-b")


@pytest.mark.parametrize(
    ("other", "step"),
    [("backup", "verify_object"), ("migrate", "verify_schema"), ("delete", "withdraw_route")],
)
async def test_no_move_begins_while_something_else_runs(
    driver: Driver,
    stack: Stack,
    catalog: Any,
    look: Any,  # noqa: F811, ARG001 - no way back stays open
    other: Kind,
    step: str,
) -> None:
    slug = fresh_slug(f"busy-{other}")
    await driver.create(slug, server="pg-a")
    before = await placed(driver)
    driver.arm(other, step, "before", slug, "sigstop")
    running = (await ask(driver, slug, other)).json()
    async with frozen(stack, f"worker-{PLANS[other].queue}"):
        asked = await driver.api.post(f"/v1/tenants/{slug}/moves", json={"server": "pg-b"})
        assert asked.status_code == 409
        assert running["id"] in asked.text
    await driver.finish(running, SECONDS)
    found = """SELECT count(*) FROM moves m JOIN tenants t ON t.id = m.tenant_id
                WHERE t.slug = $1"""
    assert await catalog.fetchval(found, slug) == 0
    if other == "delete":
        asked = await driver.api.post(f"/v1/tenants/{slug}/moves", json={"server": "pg-b"})
        assert asked.status_code == 409
    else:
        assert await placed(driver) == before
        await driver.finish(await begin(driver, slug), SECONDS)
    await driver.assert_clean()


async def test_what_would_cut_the_way_back_is_refused(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    """Changes of the schema do not flow back: first the way back is given up, or gone."""
    slug = await make(driver, look, "open")
    await driver.back_up(slug)
    async with writing(driver, slug, sessions=0) as fleet:
        await driver.finish(await begin(driver, slug), SECONDS)
        for other in CUT_THE_WAY_BACK:
            answer = await ask(driver, slug, other)
            assert answer.status_code == 409, (other, answer.text)
            assert f"tenantry move finish {slug}" in answer.json()["detail"], (other, answer.text)
        await driver.run(slug, "backup")
        await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse"), SECONDS)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")
    await driver.run(slug, "backup")
    await driver.finish(await driver.begin(slug, "restore", target="in_place"), SECONDS)
    await driver.assert_clean()


async def test_credentials_changed_meanwhile_are_those_of_the_way_back(
    driver: Driver,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "renewed")
    await driver.finish(await begin(driver, slug), SECONDS)
    before = await driver.dsn(slug)
    await driver.run(slug, "rotate", grace_seconds=1)
    await driver.run(slug, "suspend")
    refused = await driver.api.post(f"/v1/tenants/{slug}/moves/reverse")
    assert refused.status_code == 409
    assert "suspended" in refused.json()["detail"]
    await driver.run(slug, "resume")
    await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse"), SECONDS)
    await driver.settle()
    after = await driver.dsn(slug)
    assert after["login"] != before["login"]
    assert await who_logs_in(after["dsn"]) == after["login"]
    # The grace of the credentials before is over in a moment.
    async with asyncio.timeout(SECONDS):
        while await who_logs_in(before["dsn"]) is not None:
            await asyncio.sleep(0.2)
    await driver.assert_clean()


async def test_a_sequence_that_fell_behind_is_found(
    driver: Driver,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "sequences")
    async with look(slug) as inside:
        owner = await inside.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'acked'")
        await inside.execute(
            f"""SET ROLE {owner}; CREATE TABLE public.counted (id serial PRIMARY KEY);
                INSERT INTO public.counted SELECT FROM generate_series(1, 30);
                GRANT SELECT ON public.counted, public.counted_id_seq
                   TO {owner.replace("_owner", "_bak")}"""
        )
    await driver.finish(await begin(driver, slug), SECONDS)
    await driver.assert_clean()
    async with look(slug) as inside:
        await inside.execute("SELECT setval('public.counted_id_seq', 29)")
        (found,) = await driver.findings()
        assert (found["code"], found["subject"]) == ("I-7", slug)
        assert "public.counted_id_seq stands at 29, behind 30" in found["message"]
        await inside.execute("SELECT setval('public.counted_id_seq', 30)")
    await driver.assert_clean()


async def who_logs_in(dsn: str) -> str | None:
    """The login that this DSN leads in, or that nobody is let in."""
    try:
        connection = await asyncpg.connect(dsn, statement_cache_size=0, ssl=False)
    except asyncpg.PostgresError:
        return None
    try:
        return str(await connection.fetchval("SELECT current_user"))
    finally:
        await connection.close()


async def test_back_after_thousands_of_transactions(
    driver: Driver,
    stack: Stack,
    look: Any,  # noqa: F811
) -> None:
    slug = await make(driver, look, "thousands")
    async with writing(driver, slug, pooled=3, sessions=0, pause=0) as fleet:
        await driver.finish(await begin(driver, slug), SECONDS)
        there = len(fleet.acked())
        async with asyncio.timeout(SECONDS):
            while len(fleet.acked()) < there + 5_000:
                await asyncio.sleep(0.1)
        await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse"), SECONDS)
        returned = len(fleet.acked())
        while len(fleet.acked()) < returned + 100:
            await asyncio.sleep(0.02)
    assert [writer.errors for writer in fleet.pooled] == [[] for _ in fleet.pooled]
    await prove(driver, stack, look, fleet, "pg-a")
