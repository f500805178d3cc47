"""Legal holds, and bundles for customers: asked for, opened by their recipient, on record."""

from typing import Any

import httpx
import pyrage  # type: ignore[import-untyped]  # it comes without stubs
from playwright.async_api import expect

from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn

LIVE_MS = 90_000


async def test_a_hold_is_put_with_a_reason_and_released(
    sign_in: SignIn, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("held")
    await driver.create(slug)
    viewer = await sign_in("security_admin")
    page = viewer.page
    await viewer.open(f"/console/tenants/{slug}")
    await page.get_by_role("link", name="Legal hold").click()
    assert await viewer.serious_findings() == []
    await page.get_by_label("Reason").fill("case 4711")
    await page.get_by_role("button", name="Hold it").click()
    await expect(page.locator(".notice").first).to_contain_text("case 4711")
    assert (await driver.call("GET", f"/v1/tenants/{slug}/legal-hold"))["reason"] == "case 4711"
    await page.get_by_role("link", name="Release it").click()
    await page.get_by_label("Reason").fill("closed")
    await page.get_by_role("button", name="Release it").click()
    await expect(page.get_by_role("link", name="Legal hold")).to_be_visible()
    assert not (await driver.call("GET", f"/v1/tenants/{slug}/legal-hold"))["held"]
    told = await catalog.fetch(
        "SELECT action, reason FROM audit_events WHERE actor = $1 AND subject = $2 ORDER BY seq",
        viewer.email,
        slug,
    )
    assert [tuple(row) for row in told] == [
        ("tenant.hold", "case 4711"),
        ("tenant.release", "closed"),
    ]
    await viewer.open(f"/console/tenants/{slug}/release")
    assert "nothing to release" in await viewer.text()


async def test_an_export_is_made_for_a_recipient_who_can_open_it(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("exported")
    await driver.create(slug)
    identity = pyrage.x25519.Identity.generate()
    viewer = await sign_in("security_admin")
    page = viewer.page
    await viewer.open(f"/console/tenants/{slug}/export")
    await page.get_by_label("Public age key").fill("age1nonsense")
    await page.get_by_role("button", name="Export for the customer").click()
    await expect(page.get_by_role("alert").first).to_contain_text("age")
    await page.get_by_label("Public age key").fill(str(identity.to_public()))
    await page.get_by_role("button", name="Export for the customer").click()
    await page.wait_for_url("**/console/operations/op_*")
    await expect(page.locator(".heading .chip").first).to_have_text("succeeded", timeout=LIVE_MS)
    await viewer.open(f"/console/tenants/{slug}/exports")
    await page.get_by_role("button", name="Link to ex_").click()
    url = await page.locator(".copyable code").inner_text()
    assert await viewer.serious_findings() == []
    async with httpx.AsyncClient() as client:
        bundle = (await client.get(url)).content
    assert pyrage.decrypt(bundle, [identity]).startswith(b"PK")
    auditor = await sign_in("auditor")
    await auditor.open(f"/console/tenants/{slug}/exports")
    assert await auditor.page.get_by_role("button", name="Link to").count() == 0
