"""Servers are looked at, drained with a plan, and enrolled after a look."""

from pathlib import Path

from playwright.async_api import expect

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn


async def test_a_drain_shows_where_each_tenant_would_go_and_asks_for_the_name(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("drained")
    await driver.create(slug, server="pg-a")
    viewer = await sign_in("security_admin")
    page = viewer.page
    await viewer.open("/console/servers")
    await page.get_by_role("link", name="pg-a").click()
    await page.get_by_role("link", name="Drain", exact=True).click()
    row = page.locator("tbody tr", has=page.get_by_role("link", name=slug))
    await expect(row.locator("td").last).to_have_text("pg-b")
    await expect(page.get_by_role("button", name="Drain")).to_be_disabled()
    await page.get_by_label("Type pg-a to confirm").fill("pg-a")
    await page.get_by_role("button", name="Drain").click()
    await page.wait_for_url("**/servers/pg-a")
    await expect(page.locator(".heading .chip").first).to_have_text("draining")
    assert (await driver.call("GET", "/v1/servers/pg-a"))["state"] == "draining"
    await page.get_by_role("button", name="Take tenants again").click()
    await expect(page.locator(".heading .chip").first).to_have_text("active")
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["server"] == "pg-a"


async def test_a_server_with_tenants_is_not_removed(sign_in: SignIn, driver: Driver) -> None:
    await driver.create(fresh_slug("staying"), server="pg-b")
    viewer = await sign_in("security_admin")
    await viewer.open("/console/servers/pg-b/remove")
    assert "is not removed before they are elsewhere" in await viewer.text()
    assert await viewer.page.get_by_role("button", name="Remove").count() == 0


async def test_enrolment_answers_with_every_finding_and_writes_nothing(
    sign_in: SignIn, driver: Driver, stack: Stack
) -> None:
    known = await driver.call("GET", "/v1/servers/pg-a")
    viewer = await sign_in("security_admin")
    page = viewer.page
    await viewer.open("/console/enrol")
    await page.get_by_label("Name").fill("pg-again")
    await page.get_by_label("Host").fill(known["host"])
    await page.get_by_label("Port").fill(str(known["port"]))
    await page.get_by_label("Administrator").fill(known["user"])
    await page.get_by_label("Its password").fill("not the password")
    await page.get_by_role("button", name="Look at it").click()
    findings = page.locator("#findings")
    await expect(findings).to_contain_text("check the user and the password")
    await page.get_by_label("Its password").fill(_password(stack))
    await page.get_by_role("button", name="Look at it").click()
    await expect(findings).to_contain_text("can be enrolled")
    assert await findings.locator("tbody tr").count() == len(known["preflight"])
    await page.get_by_role("button", name="Enrol").click()
    await expect(page.get_by_role("alert").first).to_contain_text("enrolled already")
    assert await page.get_by_label("Its password").input_value() == ""
    assert (await driver.api.get("/v1/servers/pg-again")).status_code == 404


async def test_who_may_only_look_sees_no_button(sign_in: SignIn) -> None:
    viewer = await sign_in("operator")
    await viewer.open("/console/servers/pg-a")
    for name in ("Drain", "Remove", "Enrol a server"):
        assert await viewer.page.get_by_role("link", name=name, exact=True).count() == 0
    for path in ("/console/enrol", "/console/servers/pg-a/drain", "/console/servers/pg-a/remove"):
        assert (await viewer.open(path)).status == 403


def _password(stack: Stack) -> str:
    return Path(stack.facts()["servers"][0]["admin_password_file"]).read_text().strip()
