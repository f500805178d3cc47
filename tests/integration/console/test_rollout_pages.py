"""A rollout is watched as a grid, and stopped and resumed from its page."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from deploy.local.stack import Stack
from tests.driver import Driver
from tests.integration.console.conftest import SignIn
from tests.laboratory import Laboratory

LIVE_MS = 90_000


@pytest.fixture
async def lab(stack: Stack, driver: Driver) -> AsyncIterator[Laboratory]:
    laboratory = Laboratory(stack, driver)
    yield laboratory
    await laboratory.leave()


async def test_a_halted_rollout_says_what_failed_and_goes_on_after_the_fix(
    lab: Laboratory, sign_in: SignIn
) -> None:
    slugs = await lab.tenants(4, "grid")
    broken = slugs[1:3]
    for slug in broken:
        async with lab.inside(slug) as connection:
            await connection.execute(
                "INSERT INTO lab.sample (id, taken_at, kind) "
                "VALUES (gen_random_uuid(), now(), 'mislaid')"
            )
    wanted = lab.add(
        "ALTER TABLE lab.sample ADD CONSTRAINT kind_in_grid CHECK (kind <> 'mislaid')",
        extra='lint_overrides = {"constraint-not-valid": "every laboratory table is small"}',
    )
    # All four begin at once, and one failure alone does not halt: both are there when it does.
    begun = await lab.begin("grid", canary=0, waves=["100%"], halt_at="40%")
    viewer, auditor = await sign_in("operator"), await sign_in("auditor")
    page = viewer.page
    await viewer.open("/console/rollouts")
    await page.get_by_role("link", name=wanted).click()
    await expect(page.locator(".heading .chip").first).to_have_text("halted", timeout=LIVE_MS)
    await expect(page.locator(".failure")).to_contain_text("2 tenants: revision_failed")
    for slug in broken:
        cell = page.locator(".cells .cell.failed", has_text=slug)
        await expect(cell).to_have_accessible_name(f"{slug}: failed")
    assert await viewer.serious_findings() == []
    await auditor.open(f"/console/rollouts/{begun['subject']}")
    assert await auditor.page.get_by_role("button", name="Resume").count() == 0
    assert (await auditor.open(f"/console/rollouts/{begun['subject']}/abort")).status == 403
    for slug in broken:
        async with lab.inside(slug) as connection:
            await connection.execute("UPDATE lab.sample SET kind = 'blood'")
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator(".heading .chip").first).to_have_text("succeeded", timeout=LIVE_MS)
    assert await page.locator(".cells .cell.done").count() == len(slugs)
    assert await lab.revisions(slugs) == {wanted}


async def test_a_rollout_is_paused_and_aborted(lab: Laboratory, sign_in: SignIn) -> None:
    slugs = await lab.tenants(6, "brakes")
    lab.add("SELECT pg_sleep(1)", "ALTER TABLE lab.sample ADD COLUMN brakes text")
    begun = await lab.begin("brakes", canary=1, waves=["100%"], per_server=1)
    viewer = await sign_in("operator")
    page = viewer.page
    await viewer.open(f"/console/rollouts/{begun['subject']}")
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator(".heading .chip").first).to_have_text("paused")
    await expect(page.locator(".notice")).to_have_text(f"paused by {viewer.email}")
    await page.get_by_role("link", name="Abort").click()
    assert f"of {len(slugs)} tenants keep the revision" in await viewer.text()
    await page.get_by_role("button", name="Abort it").click()
    await expect(page.locator(".heading .chip").first).to_have_text("aborted", timeout=LIVE_MS)
    assert await page.locator(".cells .cell.skipped").count() > 0


async def test_a_rollout_is_looked_at_wave_by_wave_and_then_started(
    lab: Laboratory, sign_in: SignIn
) -> None:
    slugs = await lab.tenants(3, "walk")
    refused = lab.add("ALTER TABLE lab.sample ADD COLUMN walk text NOT NULL")
    viewer = await sign_in("operator")
    page = viewer.page
    await viewer.open("/console/rollouts")
    await page.get_by_role("link", name="Start a rollout").click()
    await page.get_by_label("Template").select_option("lab")
    await page.get_by_label("Label").fill("group=walk")
    await page.get_by_label("Waves").fill("100%")
    plan = page.locator("#plan")
    await expect(plan).to_contain_text("It would be refused", timeout=LIVE_MS)
    await page.get_by_role("button", name="Start it").click()
    await expect(page.get_by_role("alert").first).to_contain_text(refused)
    lab.remove(refused)
    wanted = lab.add("ALTER TABLE lab.sample ADD COLUMN walk text")
    await page.get_by_label("Waves").fill("50%")
    await page.get_by_label("Waves").press("Tab")
    await expect(plan).to_contain_text("rising shares that end with 100%", timeout=LIVE_MS)
    await page.get_by_label("Waves").fill("50%,100%")
    await page.get_by_label("Waves").press("Tab")
    await expect(plan).to_contain_text("3 tenants", timeout=LIVE_MS)
    await expect(plan).to_contain_text("ADD COLUMN walk text")
    assert await viewer.serious_findings() == []
    await page.get_by_role("button", name="Start it").click()
    await page.wait_for_url("**/console/rollouts/ro_*")
    await expect(page.locator(".heading .chip").first).to_have_text("succeeded", timeout=LIVE_MS)
    assert await lab.revisions(slugs) == {wanted}
