"""What is in a tenant's database, looked up when its page is opened."""

import asyncpg
from playwright.async_api import expect

from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn


async def test_tables_indexes_and_slow_statements_are_one_click_from_the_tenant(
    sign_in: SignIn, driver: Driver
) -> None:
    slug = fresh_slug("inside")
    await driver.create(slug)
    connection = await asyncpg.connect((await driver.dsn(slug))["dsn"], statement_cache_size=0)
    await connection.fetch(
        "SELECT count(*) AS slow_one FROM generate_series(1, 1000000) n WHERE n::text <> '<b>x'"
    )
    await connection.close()
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}")
    await viewer.page.get_by_role("link", name="Tables, indexes and slow statements").click()
    tables = viewer.page.get_by_role("region", name="Tables by size")
    await expect(tables).to_contain_text("audit.")
    statements = viewer.page.get_by_role("region", name="Statements by time")
    await expect(statements).to_contain_text("slow_one")
    await expect(statements).not_to_contain_text("<b>x")
    waiting = viewer.page.locator("summary")
    await expect(waiting).to_contain_text("that nothing has read yet")
    await waiting.click()
    assert await viewer.serious_findings() == []


async def test_who_may_not_look_inside_is_not_offered_it(sign_in: SignIn, driver: Driver) -> None:
    slug = fresh_slug("inside")
    await driver.create(slug)
    viewer = await sign_in("sales_ops")
    await viewer.open(f"/console/tenants/{slug}")
    assert await viewer.page.get_by_role("link", name="slow statements").count() == 0
    assert (await viewer.open(f"/console/tenants/{slug}/inside")).status == 403
