"""What could be lost, who did what, and which keys there are: looked at, taken along, ended."""

import csv
import io
from typing import Any

import httpx
from playwright.async_api import expect

from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn
from tests.integration.console.viewer import Viewer


async def test_a_tenant_past_its_limit_is_the_first_and_red(
    sign_in: SignIn, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("exposed")
    await driver.create(slug)
    await driver.call(
        "PUT",
        f"/v1/tenants/{slug}/backup-schedule",
        json={"cron": "0 0 1 1 *", "rpo_minutes": 576_000},
    )
    moved = "UPDATE tenants SET activated_at = activated_at {} interval '500 days' WHERE slug = $1"
    await catalog.execute(moved.format("-"), slug)
    try:
        viewer = await sign_in("auditor")
        await viewer.open("/console/backups")
        broken = viewer.page.get_by_role("region", name="Policies that are not kept")
        row = broken.locator("tbody tr").first
        await expect(row).to_contain_text(slug)
        await expect(row.locator(".chip.bad")).to_have_text("past its limit")
    finally:
        await catalog.execute(moved.format("+"), slug)


async def test_the_audit_log_is_searched_by_every_part(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("searched")
    await driver.create(slug)
    await driver.dsn(slug)
    viewer = await sign_in("auditor")
    assert await _actions(viewer, f"tenant={slug}") == ["dsn.reveal", "tenant.create"]
    assert await _actions(viewer, f"tenant={slug}&action=dsn.") == ["dsn.reveal"]
    assert await _actions(viewer, f"tenant={slug}&actor=local-admin&outcome=denied") == []
    assert await _actions(viewer, f"tenant={slug}&since=2100-01-01T00:00") == []
    until = "until=2100-01-01T00:00&zone=Asia/Kolkata"
    assert len(await _actions(viewer, f"tenant={slug}&{until}")) == 2
    await viewer.open("/console/audit?since=yesterday")
    await expect(viewer.page.get_by_role("alert")).to_contain_text("since: give a day")
    await viewer.open("/console/audit?tenant=nobody-at-all")
    await expect(viewer.page.get_by_role("alert")).to_contain_text("there is no tenant")


async def test_an_export_has_no_formula_and_is_on_record(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("exported")
    await driver.create(slug)
    body = {"pool": "transaction", "reason": "=1+1"}
    await driver.call("POST", f"/v1/tenants/{slug}/dsn", json=body)
    viewer = await sign_in("auditor")
    await viewer.open(f"/console/audit?tenant={slug}")
    async with viewer.page.expect_download() as downloading:
        await viewer.page.get_by_role("link", name="Export as CSV").click()
    path = await (await downloading.value).path()
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))
    assert [row["action"] for row in rows] == ["dsn.reveal", "tenant.create"]
    assert rows[0]["reason"] == "'=1+1"
    assert await _actions(viewer, f"actor={viewer.email}&action=audit.") == ["audit.export"]


async def test_a_key_is_shown_once_works_and_is_revoked(
    sign_in: SignIn, driver: Driver, console_url: str
) -> None:
    slug = fresh_slug("keyed")
    await driver.create(slug)
    viewer = await sign_in("security_admin")
    page = viewer.page
    await viewer.open(f"/console/keys/new?tenant={slug}")
    await page.get_by_role("button", name="Make the key").click()
    token = await page.locator(".copyable code").inner_text()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=console_url, headers=headers, timeout=30) as app:
        asked = await app.post(f"/v1/tenants/{slug}/dsn", json={"pool": "transaction"})
        assert asked.status_code == 200
        await page.get_by_role("link", name="Done").click()
        assert token not in await page.content()
        await page.get_by_role("link", name=f"Revoke {slug} app").click()
        await page.get_by_role("button", name="Revoke").click()
        await page.wait_for_url("**/console/keys")
        refused = await app.post(f"/v1/tenants/{slug}/dsn", json={"pool": "transaction"})
        assert refused.status_code == 401


async def test_a_key_that_cannot_be_is_told_beside_its_fields(sign_in: SignIn) -> None:
    viewer = await sign_in("security_admin")
    await viewer.open("/console/keys/new")
    await viewer.page.get_by_label("Name").fill("none")
    await viewer.page.get_by_role("button", name="Make the key").click()
    await expect(viewer.page.locator("#h-roles")).to_have_text("name at least one")
    auditor = await sign_in("auditor")
    await auditor.open("/console/keys")
    assert await auditor.page.get_by_role("link", name="New key").count() == 0
    assert (await auditor.open("/console/keys/new")).status == 403


async def _actions(viewer: Viewer, query: str) -> list[str]:
    await viewer.open(f"/console/audit?{query}")
    return await viewer.page.locator("tbody tr td:nth-child(3)").all_inner_texts()
