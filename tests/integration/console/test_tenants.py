"""The list of tenants: found by a part of a name, filtered, page after page, and escaped."""

import httpx
from playwright.async_api import expect

from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"


async def test_a_tenant_is_found_by_a_part_of_its_slug_or_name(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("findable")
    await driver.create(slug, name="Dr. Quokka & Daughters")
    viewer = await sign_in("sales_ops")
    await viewer.open("/console/tenants")
    box = viewer.page.get_by_label("Slug or name")
    rows = viewer.page.locator("#found tbody tr")
    for words in (slug[3:], "QUOKKA &"):
        await box.fill("")
        await box.press_sequentially(words)
        await expect(rows).to_have_count(1)
        await expect(rows.first).to_contain_text("Dr. Quokka & Daughters")
    await box.fill("%")
    await expect(viewer.page.get_by_text("No tenant matches")).to_be_visible()
    assert "q=%25" in viewer.page.url


async def test_filters_and_pages_lead_through_every_tenant(sign_in: SignIn, driver: Driver) -> None:
    slugs = [fresh_slug("paged") for _ in range(3)]
    for slug in slugs:
        await driver.create(slug)
    await driver.run(slugs[0], "suspend")
    viewer = await sign_in("operator")
    await viewer.open("/console/tenants?q=paged&state=suspended")
    assert await viewer.page.locator("#found tbody tr").count() == 1
    assert slugs[0] in await viewer.text()
    await viewer.open("/console/tenants?q=paged")
    await viewer.page.get_by_label("State").select_option("active")
    await expect(viewer.page.locator("#found tbody tr")).to_have_count(2)


async def test_names_and_labels_are_text_and_nothing_else(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("hostile")
    await driver.create(slug, name=HOSTILE, labels={"<b>note": HOSTILE})
    viewer = await sign_in("operator", "security_admin", "auditor", "sales_ops", "app")
    asked: list[str] = []
    viewer.page.on("dialog", lambda dialog: asked.append(dialog.message))
    for path in (
        f"/console/tenants?q={slug}",
        f"/console/tenants/{slug}",
        f"/console/tenants/{slug}/suspend",
        f"/console/tenants/{slug}/dsn",
    ):
        await viewer.open(path)
        assert HOSTILE in await viewer.text(), path
        assert await viewer.page.locator("main script, main img").count() == 0
    await viewer.open('/console/tenants?q="><script>alert(3)</script>')
    assert await viewer.page.input_value("#f-q") == '"><script>alert(3)</script>'
    assert asked == []


async def test_a_tenant_that_is_not_there_is_told_like_any_other_page(
    sign_in: SignIn, api: httpx.AsyncClient
) -> None:
    del api
    viewer = await sign_in("operator")
    answer = await viewer.open("/console/tenants/no-such-clinic")
    assert answer.status == 404
    assert "There is nothing here" in await viewer.text()
