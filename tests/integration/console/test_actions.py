"""What is done with a tenant from its page: planned, typed, done; and what is not for somebody."""

from typing import Any

import asyncpg
import httpx
import pytest
from playwright.async_api import expect

from control_plane.console.actions import ACTIONS
from control_plane.domain.keys import PERMISSIONS
from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn
from tests.integration.console.viewer import Viewer

ROLES = ("sales_ops", "operator", "security_admin", "auditor")


async def test_suspend_shows_its_plan_and_asks_for_the_slug(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("suspended")
    await driver.create(slug)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}")
    await viewer.page.get_by_role("link", name="Suspend").click()
    await expect(viewer.page.locator("#plan")).to_contain_text("nothing stands in its way")
    assert await viewer.page.locator("#plan li").all_inner_texts() == [
        "withdraw route",
        "revoke logins",
        "terminate sessions",
        "wait poolers",
        "verify closed",
        "mark suspended",
    ]
    button = viewer.page.get_by_role("button", name="Suspend")
    await expect(button).to_be_disabled()
    await viewer.page.get_by_label(f"Type {slug} to confirm").fill(slug)
    await button.click()
    await _finish(viewer, driver)
    await viewer.open(f"/console/tenants/{slug}")
    await expect(viewer.page.locator(".heading .chip").first).to_have_text("suspended")
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["state"] == "suspended"
    await viewer.page.get_by_role("link", name="Resume").click()
    await viewer.page.get_by_role("button", name="Resume").click()
    await _finish(viewer, driver)
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["state"] == "active"


async def test_the_server_looks_at_the_typed_slug_too(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("untyped")
    await driver.create(slug)
    viewer = await sign_in("operator", "security_admin")
    for action in ("suspend", "archive", "delete"):
        await viewer.open(f"/console/tenants/{slug}/{action}")
        await viewer.page.evaluate("document.querySelector('[name=confirm]').remove()")
        await viewer.page.evaluate("document.querySelector('button.danger').disabled = false")
        await viewer.page.locator("button.danger").click()
        await expect(viewer.page.get_by_role("alert").first).to_contain_text(f"type {slug}")
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["operation"] is None


async def test_backup_and_restore_from_the_picker(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("restored")
    await driver.create(slug)
    dsn = (await driver.dsn(slug, pool="session"))["dsn"]
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}/backup")
    await viewer.page.get_by_role("button", name="Back up").click()
    await _finish(viewer, driver)
    await _execute(
        dsn,
        """INSERT INTO public.city (country_code, region, name)
           VALUES ('GB', 'England', 'After The Backup')""",
    )
    await viewer.open(f"/console/tenants/{slug}/restore")
    assert await viewer.page.get_by_role("radio").count() == 1
    await viewer.page.get_by_label(f"Type {slug} to confirm").fill(slug)
    await viewer.page.get_by_role("button", name="Restore").click()
    await _finish(viewer, driver)
    assert await _execute(dsn, "SELECT count(*) FROM public.city") == 0
    await viewer.open(f"/console/tenants/{slug}")
    assert await viewer.page.get_by_role("link", name="Undo the restore").count() == 1
    assert "proven" in await viewer.text()


async def test_a_move_offers_the_servers_that_fit_and_says_why_others_do_not(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("moving")
    created = await driver.create(slug)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}/move")
    names = await viewer.page.locator(".picker strong").all_inner_texts()
    assert created["server"] not in names
    assert set(names) | {created["server"]} == {"pg-a", "pg-b"}
    await expect(viewer.page.locator("#plan")).to_contain_text("switch route")


async def test_what_stands_in_the_way_is_told_before_the_button(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("resting")
    await driver.create(slug)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}/resume")
    await expect(viewer.page.locator("#plan")).to_contain_text("only a tenant that is suspended")
    await viewer.page.get_by_role("button", name="Resume").click()
    await expect(viewer.page.get_by_role("alert").first).to_contain_text("is active")


async def test_a_form_that_is_sent_twice_does_its_thing_once(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("twice")
    await driver.create(slug)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}/backup")
    fields: dict[str, Any] = await viewer.page.evaluate(
        "Object.fromEntries(new FormData(document.querySelector('main form')))"
    )
    answers = [
        await viewer.context.request.post(
            f"{viewer.url}/console/tenants/{slug}/backup",
            form=fields,
            headers={"Origin": viewer.url},
            max_redirects=0,
        )
        for _ in range(2)
    ]
    first, second = (answer.headers["location"] for answer in answers)
    assert first == second
    await driver.finish(await driver.call("GET", f"/v1{first.removeprefix('/console')}"))


async def test_a_dsn_is_shown_once_to_who_may_and_is_on_record(
    sign_in: SignIn, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("revealed")
    await driver.create(slug)
    viewer = await sign_in("sales_ops", "app")
    await viewer.open(f"/console/tenants/{slug}")
    await viewer.page.get_by_role("link", name="Reveal DSN").click()
    assert await _showings(catalog, slug, viewer.email) == 0
    await viewer.page.get_by_label("Reason").fill("hand-over to the clinic")
    async with viewer.page.expect_response(lambda r: r.request.method == "POST") as answered:
        await viewer.page.get_by_role("button", name="Reveal").click()
    assert (await (await answered.value).all_headers())["cache-control"] == "no-store"
    dsn = await viewer.page.inner_text(".copyable code")
    assert await _execute(dsn, "SELECT 1") == 1
    assert await _showings(catalog, slug, viewer.email) == 1
    await viewer.page.reload()
    assert "shown once" in await viewer.text()
    assert dsn not in await viewer.page.content()
    assert await _showings(catalog, slug, viewer.email) == 1


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_may_not_do_is_neither_shown_nor_possible(
    sign_in: SignIn, driver: Driver, catalog: Any, role: str
) -> None:
    slug = fresh_slug("guarded")
    await driver.create(slug)
    viewer = await sign_in(role)
    await viewer.open(f"/console/tenants/{slug}")
    hrefs = [
        str(await link.get_attribute("href"))
        for link in await viewer.page.locator(".actions a, .heading .buttons a").all()
    ]
    shown = {href.rsplit("/", 1)[1] for href in hrefs}
    token = await viewer.page.get_attribute("input[name=csrf_token]", "value")
    refused = 0
    for path, operation_id in [(one.path, one.permission) for one in ACTIONS] + [
        ("dsn", "revealDsn")
    ]:
        allowed = role in PERMISSIONS[operation_id]
        assert allowed or path not in shown, path
        if allowed:
            continue
        url = f"{viewer.url}/console/tenants/{slug}/{path}"
        looked = await viewer.context.request.get(url)
        posted = await viewer.context.request.post(
            url,
            form={"csrf_token": str(token), "confirm": slug, "form_key": "k" * 20},
            headers={"Origin": viewer.url},
        )
        assert (looked.status, posted.status) == (403, 403), path
        refused += 2
    denials = await catalog.fetchval(
        "SELECT count(*) FROM audit_events WHERE actor = $1 AND outcome = 'denied'", viewer.email
    )
    assert denials == refused
    assert (await driver.call("GET", f"/v1/tenants/{slug}"))["operation"] is None


async def test_pages_of_others_are_neither_in_the_navigation_nor_at_their_address(
    sign_in: SignIn, api: httpx.AsyncClient
) -> None:
    del api
    viewer = await sign_in("sales_ops")
    places = await viewer.page.locator("nav[aria-label=Main] a").all_inner_texts()
    assert "People" not in places
    assert (await viewer.open("/console/people")).status == 403
    assert "Not for you to do" in await viewer.text()


async def _finish(viewer: Viewer, driver: Driver) -> None:
    """Wait for the operation that the page led to."""
    await viewer.page.wait_for_url("**/console/operations/op_*")
    operation = viewer.page.url.rsplit("/", 1)[1]
    await driver.finish(await driver.call("GET", f"/v1/operations/{operation}"))


async def _showings(catalog: Any, slug: str, email: str) -> int:
    found: int = await catalog.fetchval(
        """SELECT count(*) FROM audit_events
           WHERE action = 'dsn.reveal' AND subject = $1 AND actor = $2""",
        slug,
        email,
    )
    return found


async def _execute(dsn: str, statement: str) -> Any:
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.user_id', 'dr-ada', true)")
            return await connection.fetchval(statement)
    finally:
        await connection.close()
