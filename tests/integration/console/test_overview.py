"""The overview: what runs is live, what needs somebody is told with what to do."""

import asyncio
from typing import Any

from playwright.async_api import expect

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn

# The watch over backups comes round, and then the page hears of the next operation or looks itself.
NOTICED_MS = 120_000


async def test_what_runs_appears_and_goes_without_a_reload(
    sign_in: SignIn, driver: Driver, stack: Stack
) -> None:
    slug = fresh_slug("running")
    viewer = await sign_in("sales_ops")
    running = viewer.page.locator("section[aria-labelledby=h-running]")
    await asyncio.to_thread(stack.halt, "worker-control")
    try:
        operation = await driver.begin_create(slug)
        await expect(running).to_contain_text(slug)
    finally:
        await asyncio.to_thread(stack.restart, "worker-control")
    await driver.finish(operation)
    await expect(running).not_to_contain_text(slug)


async def test_what_needs_somebody_is_told_worst_first_until_it_is_mended(
    sign_in: SignIn, driver: Driver, catalog: Any
) -> None:
    slug = fresh_slug("neglected")
    await driver.create(slug)
    await catalog.execute(
        "UPDATE tenants SET activated_at = now() - interval '500 days' WHERE slug = $1", slug
    )
    viewer = await sign_in("operator")
    attention = viewer.page.locator("section[aria-labelledby=h-attention]")
    await expect(attention).to_contain_text("past the recovery point objective", timeout=NOTICED_MS)
    await expect(attention).to_contain_text("without a recent proven restore")
    severities = await attention.locator(".concern h3 .chip").all_inner_texts()
    order = ["critical", "serious", "notice"]
    assert severities == sorted(severities, key=order.index)
    await driver.finish(await driver.verify(await driver.back_up(slug)))
    await expect(attention).not_to_contain_text(slug, timeout=NOTICED_MS)


async def test_a_look_at_reality_is_asked_for_and_answered(sign_in: SignIn, driver: Driver) -> None:
    await driver.settle()
    viewer = await sign_in("auditor")
    await viewer.page.get_by_role("button", name="Look now").click()
    await expect(viewer.page.locator("#findings")).to_contain_text("agree", timeout=60_000)
    other = await sign_in("sales_ops")
    assert await other.page.get_by_role("button", name="Look now").count() == 0
