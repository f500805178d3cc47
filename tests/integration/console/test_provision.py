"""From signing in to a working DSN, one tenant or many; and what stands beside each wrong field."""

import asyncpg
import pytest
from playwright.async_api import expect

from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn
from tests.integration.console.viewer import Viewer

LIVE_MS = 90_000


async def test_sales_ops_provisions_a_clinic_and_its_dsn_works(sign_in: SignIn) -> None:
    slug = fresh_slug("walked")
    viewer = await sign_in("sales_ops", "app")
    page = viewer.page
    await page.get_by_role("navigation").get_by_role("link", name="New tenant").click()
    await page.get_by_label("Name of the clinic").fill(slug.replace("-", " ").title())
    await expect(page.get_by_label("Slug")).to_have_value(slug)
    await expect(page.locator("#placement")).to_contain_text("least loaded of 2 that fit")
    await page.get_by_role("button", name="Create tenant").click()
    await page.wait_for_url("**/operations/op_*")
    await page.get_by_role("link", name="Hand over").click(timeout=LIVE_MS)
    assert f"/v1/tenants/{slug}/dsn" in await viewer.text()
    await page.get_by_role("button", name="Reveal the DSN").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"DSN of {slug}")
    dsn = await page.locator(".copyable code").first.inner_text()
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        assert await connection.fetchval("SELECT count(*) FROM public.city") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("slug", "words"),
    [("Not A Slug", "use 3 to 40 characters"), ("postgres", "reserved"), (None, "another tenant")],
)
async def test_a_slug_that_cannot_be_is_told_beside_its_field(
    sign_in: SignIn, driver: Driver, slug: str | None, words: str
) -> None:
    if slug is None:
        slug = fresh_slug("taken")
        await driver.create(slug)
    viewer = await sign_in("sales_ops")
    await viewer.open("/console/provision")
    await viewer.page.get_by_label("Name of the clinic").fill("A Clinic")
    await expect(viewer.page.get_by_label("Slug")).to_have_value("a-clinic")
    await _listening(viewer)
    await viewer.page.get_by_label("Slug").fill(slug)
    await expect(viewer.page.locator("#slug-verdict")).to_contain_text(words)
    await expect(viewer.page.locator("#placement .trouble")).to_contain_text(words)
    await viewer.page.get_by_role("button", name="Create tenant").click()
    await expect(viewer.page.get_by_role("alert").first).to_contain_text(words)
    await expect(viewer.page.get_by_label("Name of the clinic")).to_have_value("A Clinic")


async def test_a_slug_that_somebody_typed_is_left_alone_and_a_taken_name_gets_another(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("popular")
    await driver.create(slug)
    viewer = await sign_in("sales_ops")
    await viewer.open("/console/provision")
    name = viewer.page.get_by_label("Name of the clinic")
    await name.fill(slug)
    await expect(viewer.page.get_by_label("Slug")).to_have_value(f"{slug}-2")
    await _listening(viewer)
    await viewer.page.get_by_label("Slug").fill("my-own")
    await name.fill("Something else")
    await expect(viewer.page.locator("#placement")).to_contain_text("my-own")
    await expect(viewer.page.get_by_label("Slug")).to_have_value("my-own")


async def test_a_tier_that_no_server_takes_is_told_with_the_reason(sign_in: SignIn) -> None:
    viewer = await sign_in("sales_ops")
    await viewer.open("/console/provision")
    await viewer.page.get_by_label("Name of the clinic").fill(fresh_slug("alone"))
    await viewer.page.get_by_label("dedicated").check()
    await expect(viewer.page.locator("#placement .trouble")).to_contain_text("takes tier shared")
    await viewer.page.get_by_role("button", name="Create tenant").click()
    await expect(viewer.page.get_by_role("alert").first).to_contain_text("no server fits")


async def test_without_the_role_app_the_hand_over_shows_no_dsn(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("kept")
    await driver.create(slug)
    viewer = await sign_in("sales_ops")
    await viewer.open(f"/console/handover/{slug}")
    assert "You have not got the role app" in await viewer.text()
    assert await viewer.page.get_by_role("button", name="Reveal the DSN").count() == 0
    answer = await _post(viewer, f"/console/tenants/{slug}/dsn", pool="transaction")
    assert answer == 403


async def test_a_name_is_text_wherever_it_is_shown(sign_in: SignIn, driver: Driver) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'&"
    slug = fresh_slug("text")
    viewer = await sign_in("sales_ops", "operator", "app")
    await viewer.open("/console/provision")
    await viewer.page.get_by_label("Name of the clinic").fill(evil)
    await viewer.page.get_by_label("Slug").fill(slug)
    await expect(viewer.page.locator("#placement")).to_contain_text(slug)
    await viewer.page.get_by_role("button", name="Create tenant").click()
    await viewer.page.get_by_role("link", name="Hand over").click(timeout=LIVE_MS)
    assert evil in await viewer.text()
    await viewer.open("/console/provision/bulk")
    await viewer.page.get_by_label("Paste the lines").fill(f"name\n{evil.replace(',', '')}\n")
    await viewer.page.get_by_role("button", name="Check the list").click()
    assert await viewer.page.locator("main script, main img").count() == 0
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["name"] == evil


async def test_a_list_with_two_bad_rows_goes_on_with_the_good_ones(
    sign_in: SignIn, driver: Driver
) -> None:
    first, formula = fresh_slug("listed"), fresh_slug("formula")
    lines = [
        "name;slug;tier",
        f"{first.replace('-', ' ')};;",
        "Wrong Slug;No Slug;",
        f'"=HYPERLINK(""http://evil"")";{formula};enterprise',
        "Wrong Tier;;gold",
    ]
    viewer = await sign_in("sales_ops")
    page = viewer.page
    await viewer.open("/console/provision/bulk")
    raw = b"\xef\xbb\xbf" + "\r\n".join(lines).encode()
    await page.get_by_label("File").set_input_files(
        {"name": "clinics.csv", "mimeType": "text/csv", "buffer": raw}
    )
    await page.get_by_role("button", name="Check the list").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("2 of 4 lines can be created")
    rows = await page.locator("tbody tr").all_inner_texts()
    assert "slug: use 3 to 40 characters" in rows[1]
    assert "tier: 'gold' is none; use standard, enterprise, dedicated" in rows[3]
    assert (await driver.api.get(f"/v1/tenants/{first}")).status_code == 404
    await page.get_by_role("button", name="Create 2 tenants").click()
    await page.wait_for_url("**/provision/bulk/*")
    ready = page.get_by_role("heading", name="2 of 2 ready")
    await expect(ready).to_be_visible(timeout=LIVE_MS)
    for slug in (first, formula):
        assert (await driver.call("GET", f"/v1/tenants/{slug}"))["state"] == "active"
    results = await viewer.context.request.get(f"{page.url}/results")
    text = (await results.body()).decode("utf-8-sig")
    assert f"{first.replace('-', ' ')},{first},succeeded" in text
    assert '"\'=HYPERLINK(""http://evil"")"' in text
    other = await sign_in("sales_ops")
    assert (await other.open(page.url.removeprefix(other.url))).status == 404


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clinic,slug\nA,a-b-c", "has a column 'clinic'"),
        ("name", "has no line below its heading"),
        ("name\n" + "A\n" * 101, "100 at most"),
    ],
)
async def test_a_list_that_cannot_be_read_says_how_it_has_to_look(
    sign_in: SignIn, text: str, words: str
) -> None:
    viewer = await sign_in("sales_ops")
    await viewer.open("/console/provision/bulk")
    await viewer.page.get_by_label("Paste the lines").fill(text)
    await viewer.page.get_by_role("button", name="Check the list").click()
    await expect(viewer.page.get_by_role("alert")).to_contain_text(words)
    box = viewer.page.get_by_label("Paste the lines")
    assert (await box.input_value()).strip() == text.strip()


async def _post(viewer: Viewer, path: str, **fields: str) -> int:
    """What the server says to a form that was never shown."""
    token = await viewer.page.locator("input[name=csrf_token]").first.input_value()
    answer = await viewer.context.request.post(
        f"{viewer.url}{path}",
        form={"csrf_token": token, "form_key": "A" * 24, **fields},
        headers={"Origin": viewer.url},
        max_redirects=0,
    )
    return answer.status


async def _listening(viewer: Viewer) -> None:
    """A field that was just put into the page hears nothing for some milliseconds."""
    await viewer.page.wait_for_function(
        "document.getElementById('f-slug')['htmx-internal-data'] !== undefined"
    )
