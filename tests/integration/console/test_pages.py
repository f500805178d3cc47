"""Every page of tenants and people: reads well for everybody, on every screen, in both colours."""

import pytest
from playwright.async_api import expect

from control_plane.console.actions import ACTIONS
from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn

EVERYTHING = ("sales_ops", "operator", "security_admin", "auditor", "app")
WIDTHS = (360, 1600)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
async def test_no_serious_finding_and_no_sideways_scrolling(
    sign_in: SignIn, driver: Driver, width: int, scheme: str
) -> None:
    slug = fresh_slug("well-read-by-everybody")
    await driver.create(slug, name="A Clinic With A Rather Long Name Of Several Words")
    await driver.back_up(slug)
    viewer = await sign_in(*EVERYTHING, width=width, dark=scheme == "dark")
    paths = ["/console/", "/console/tenants", "/console/people", "/console/account", "/console/no"]
    paths += ["/console/tenants?q=nobody-has-this-name", f"/console/tenants/{slug}"]
    paths += [f"/console/tenants/{slug}/{action.path}" for action in ACTIONS]
    paths += [f"/console/tenants/{slug}/{page}" for page in ("dsn", "hold", "release", "exports")]
    paths += [f"/console/tenants/{slug}?hours={24 * 365}"]
    for path in paths:
        await viewer.open(path)
        if await viewer.page.locator("#plan").count():
            await expect(viewer.page.locator("#plan .hint, #plan .notice")).to_have_count(1)
        assert await viewer.serious_findings() == [], path
        assert await viewer.overflow() <= 0, path


async def test_pages_work_by_keyboard_alone(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("by-keyboard")
    await driver.create(slug)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}/suspend")
    await viewer.page.keyboard.press("Tab")
    assert await viewer.page.evaluate("document.activeElement.className") == "skip"
    await viewer.page.keyboard.press("Enter")
    assert await viewer.page.evaluate("location.hash") == "#main"
    box = viewer.page.get_by_label(f"Type {slug} to confirm")
    for _ in range(8):
        await viewer.page.keyboard.press("Tab")
        if await box.evaluate("(element) => element === document.activeElement"):
            break
    await viewer.page.keyboard.type(slug)
    await expect(viewer.page.get_by_role("button", name="Suspend")).to_be_enabled()


async def test_times_are_in_the_viewers_zone(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("zoned")
    await driver.create(slug)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}")
    shown = await viewer.page.locator("time[data-utc]").first.inner_text()
    assert "GMT+5:30" in shown or "IST" in shown
