"""An operation is watched, retried and cancelled from its page, by who may."""

import asyncio
import re
import secrets
from typing import Any

from playwright.async_api import expect

from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn
from tests.integration.console.viewer import Viewer

LIVE_MS = 90_000


async def test_a_backup_is_watched_until_it_is_there(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("watched")
    await driver.create(slug)
    viewer = await sign_in("operator")
    begun = await driver.begin(slug, "backup")
    await viewer.open(f"/console/operations/{begun['id']}")
    chip = viewer.page.locator(".heading .chip").first
    await expect(chip).to_have_text("succeeded", timeout=LIVE_MS)
    steps = await viewer.page.locator(".step .name").all_inner_texts()
    assert steps == [step["name"].replace("_", " ") for step in begun["steps"]]
    assert await viewer.page.locator(".step.done").count() == len(steps)
    await viewer.page.get_by_role("link", name=re.compile("^bk_")).click()
    await expect(viewer.page.locator(".heading .chip").first).to_have_text("complete")
    await viewer.page.get_by_role("button", name="Prove it").click()
    await expect(chip).to_have_text("succeeded", timeout=LIVE_MS)
    await viewer.open(f"/console/drills?tenant={slug}")
    row = await viewer.page.locator("tbody tr").inner_text()
    assert slug in row
    assert "passed" in row


async def test_a_failure_says_why_and_goes_on_at_the_step_that_failed(
    sign_in: SignIn, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("mended")
    await driver.create(slug)
    failed = await _fail(driver, catalog, slug)
    operator, auditor = await sign_in("operator"), await sign_in("auditor")
    for viewer in (operator, auditor):
        await viewer.open(f"/console/operations/{failed}")
        await expect(viewer.page.get_by_role("heading", name="Why it failed")).to_be_visible()
        assert await viewer.page.locator(".step.failed").count() == 1
    assert await auditor.page.get_by_role("button", name="Retry").count() == 0
    assert "role operator" in await auditor.text()
    for verb in ("retry", "cancel"):
        assert await _post(auditor, f"/console/operations/{failed}/{verb}") == 403
    await operator.page.get_by_role("button", name="Retry").click()
    chip = operator.page.locator(".heading .chip").first
    await expect(chip).to_have_text("succeeded", timeout=LIVE_MS)
    assert await operator.page.get_by_role("button", name="Retry").count() == 0


async def test_what_a_later_operation_has_outlived_is_told_not_to_go_on(
    sign_in: SignIn, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("outlived")
    await driver.create(slug)
    failed = await _fail(driver, catalog, slug)
    later = await driver.begin(slug, "backup")
    await driver.finish(later)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/operations/{failed}")
    assert f"backup {later['id']} came after this suspend" in await viewer.text()
    assert await viewer.page.get_by_role("button", name="Retry").count() == 0


async def test_what_is_over_cannot_be_cancelled_and_says_so(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("over")
    begun = await driver.begin_create(slug)
    await driver.finish(begun)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/operations/{begun['id']}")
    assert await viewer.page.get_by_role("link", name="Cancel").count() == 0
    await viewer.open(f"/console/operations/{begun['id']}/cancel")
    assert "it is succeeded already" in await viewer.text()
    assert await _post(viewer, f"/console/operations/{begun['id']}/cancel") == 409


async def test_the_list_is_filtered_and_a_tenant_that_is_none_is_told(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("filtered")
    await driver.create(slug)
    viewer = await sign_in("auditor")
    await viewer.open(f"/console/operations?tenant={slug}&state=succeeded")
    rows = await viewer.page.locator("tbody tr").all_inner_texts()
    assert len(rows) == 1
    assert "provision" in rows[0]
    await viewer.open("/console/operations?tenant=nobody-at-all")
    await expect(viewer.page.get_by_role("alert")).to_contain_text("there is no tenant")
    assert (await viewer.open("/console/operations/op_nonsense")).status == 404


async def _fail(driver: Driver, catalog: Any, slug: str) -> str:
    """A suspension that gave up: its first step fails, and its time is over by the next attempt."""
    armed = driver.arm("suspend", "withdraw_route", "before", slug, "exception")
    operation = await driver.begin(slug, "suspend")
    while armed.exists():
        await asyncio.sleep(0.02)
    armed = driver.arm("suspend", "withdraw_route", "before", slug, "exception")
    await catalog.execute(
        """UPDATE operations SET deadline = clock_timestamp()
           WHERE tenant_id = (SELECT id FROM tenants WHERE slug = $1) AND kind = 'suspend'""",
        slug,
    )
    ended = await driver.over(operation)
    armed.unlink(missing_ok=True)
    assert ended["state"] == "failed", ended
    return str(ended["id"])


async def _post(viewer: Viewer, path: str) -> int:
    """What the server says to a form that was never shown."""
    token = await viewer.page.locator("input[name=csrf_token]").first.input_value()
    answer = await viewer.context.request.post(
        f"{viewer.url}{path}",
        form={"csrf_token": token, "form_key": secrets.token_urlsafe(18)},
        headers={"Origin": viewer.url},
        max_redirects=0,
    )
    return answer.status
