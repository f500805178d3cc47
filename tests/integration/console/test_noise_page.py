"""A tenant that disturbs its neighbours: from the list of what needs attention to its move."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Locator, expect

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn
from tests.integration.console.viewer import Viewer
from tests.integration.usage.loads import (
    COUNTING,
    WRITING,
    Load,
    Told,
    loaded,
    remember,
    tenants_on,
)

TENANTS = 5
# Samples come every two seconds, and a page looks by itself every fifteen.
NOTICED_MS = 120_000
MOVED_MS = 180_000
SERVED_SECONDS = 30.0


async def test_the_noisy_one_is_shown_tightened_and_moved_from_its_page_while_clients_run(
    stack: Stack, driver: Driver, catalog: Any, sign_in: SignIn, tmp_path: Path
) -> None:
    slugs = await tenants_on(driver, "pg-a", TENANTS)
    noisy, sufferer = slugs[1], slugs[3]
    await remember(catalog, sufferer, 0.01)
    loads = {slug: Load(WRITING, per_second=2) for slug in slugs}
    loads[noisy] = Load(WRITING, clients=8, per_second=100)
    loads[sufferer] = Load(COUNTING, per_second=5)
    viewer = await sign_in("operator")
    async with loaded(stack, driver, tmp_path, loads) as told:
        await assert_found_and_shown(viewer, noisy, sufferer)
        await assert_seen_from_its_server(await sign_in("auditor"), noisy)
        await tighten(viewer, noisy)
        await move(viewer, noisy)
        assert (await driver.call("GET", f"/v1/tenants/{noisy}"))["server"] == "pg-b"
        await assert_still_served(told[noisy])
    for one in told.values():
        assert sum(failed for _, failed in one.seconds()) == 0
        assert sum(done for done, _ in one.seconds()) > 0
    await driver.assert_clean()


async def assert_found_and_shown(viewer: Viewer, noisy: str, sufferer: str) -> None:
    """On the overview by name; on its page with the evidence, who suffers, and what may be done."""
    concern = viewer.page.locator(".concern", has_text="using too much of a server")
    await concern.get_by_role("link", name=noisy, exact=True).click(timeout=NOTICED_MS)
    noise = noise_of(viewer)
    await expect(noise).to_contain_text("Disturbs its neighbours", timeout=NOTICED_MS)
    await expect(noise.get_by_role("link", name=sufferer)).to_be_visible(timeout=NOTICED_MS)
    await expect(noise).to_contain_text("of the server; a usual neighbour has")
    await expect(noise).to_contain_text("it is hot right now")
    assert await viewer.page.locator("figure.chart").count() == 6
    written = viewer.page.get_by_role("img", name="Rows written a second")
    # The first minute of it has to be over.
    await expect(written).not_to_have_accessible_name(
        "Rows written a second: 0 now, 0 at most", timeout=NOTICED_MS
    )
    assert await viewer.serious_findings() == []


async def assert_seen_from_its_server(auditor: Viewer, noisy: str) -> None:
    """Who only looks sees the same, and no button."""
    await auditor.open("/console/servers/pg-a")
    ranked = auditor.page.get_by_role("region", name="Tenants that use most")
    await expect(ranked.locator("tbody tr").first).to_contain_text(noisy)
    await auditor.open(f"/console/tenants/{noisy}")
    await expect(noise_of(auditor)).to_contain_text("Tighten its limits")
    assert await noise_of(auditor).locator("a.button").count() == 0
    assert await auditor.serious_findings() == []


async def tighten(viewer: Viewer, noisy: str) -> None:
    """Half of its pools, with the plan before and without cutting a client off."""
    await viewer.page.locator("#r-tighten").click()
    for field, value in {"pool_size": "2", "session_pool_size": "2", "connections": "15"}.items():
        await expect(viewer.page.locator(f"#f-{field}")).to_have_value(value)
    await expect(viewer.page.locator("#plan")).to_contain_text("nothing stands in its way")
    await viewer.page.get_by_label("Reason").fill("its neighbours wait")
    await viewer.page.get_by_role("button", name="Limit").click()
    await succeeded(viewer)
    await viewer.open(f"/console/tenants/{noisy}")
    facts = viewer.page.get_by_role("region", name="Facts")
    await expect(facts).to_contain_text("pools of 2 and 2, 15 connections its own")


async def move(viewer: Viewer, noisy: str) -> None:
    """To the server that is proposed, with what it costs told before."""
    await viewer.page.locator("#a-move").click()
    await expect(viewer.page.get_by_role("radio", name="pg-b")).to_be_checked()
    await expect(viewer.page.locator(".notice").first).to_contain_text(
        f"written to the other server while {noisy} works"
    )
    await expect(viewer.page.locator("#plan")).to_contain_text("nothing stands in its way")
    await viewer.page.get_by_role("button", name="Move").click()
    await succeeded(viewer)


async def assert_still_served(told: Told) -> None:
    """Clients that never noticed go on at the new server."""
    before = len(told.seconds())
    deadline = time.monotonic() + SERVED_SECONDS
    while sum(done for done, _ in told.seconds()[before:]) == 0:
        assert time.monotonic() < deadline, told.log.read_text()[-2_000:]
        await asyncio.sleep(0.2)


async def test_limits_are_taken_back_and_what_cannot_be_is_told_beside_its_field(
    driver: Driver, sign_in: SignIn
) -> None:
    slug = fresh_slug("limited")
    await driver.create(slug)
    await driver.run(slug, "limit", pool_size=2, session_pool_size=2, connections=15)
    viewer = await sign_in("operator")
    await viewer.open(f"/console/tenants/{slug}/limit")
    await viewer.page.locator("#f-connections").fill("3")
    await viewer.page.locator("#f-connections").press("Tab")
    await expect(viewer.page.locator("#plan .notice")).to_contain_text("must be more than 8")
    await viewer.page.get_by_role("button", name="Limit").click()
    await expect(viewer.page.locator(".wrong")).to_contain_text("must be more than 8")
    for field in ("pool_size", "session_pool_size", "connections"):
        await viewer.page.locator(f"#f-{field}").fill("")
    await viewer.page.get_by_role("button", name="Limit").click()
    await expect(viewer.page.locator(".wrong")).to_contain_text("give one limit at least")
    await viewer.open(f"/console/tenants/{slug}")
    await viewer.page.get_by_role("link", name="Take its limits back").click()
    await viewer.page.get_by_role("button", name="Take its limits back").click()
    await succeeded(viewer)
    assert (await driver.call("GET", f"/v1/tenants/{slug}/limits"))["own"] == {}


async def test_usage_is_looked_back_at_as_far_as_one_wants(
    driver: Driver, sign_in: SignIn, catalog: Any
) -> None:
    slug = fresh_slug("charted")
    await driver.create(slug)
    await remember(catalog, slug, 500.0)
    viewer = await sign_in("sales_ops")
    await viewer.open(f"/console/tenants/{slug}?hours=1")
    busy = viewer.page.get_by_role("img", name="Busy sessions")
    # Quarters of hours were remembered, and an hour is drawn in minutes.
    assert await busy.count() == 0 or "0.56" not in str(await busy.get_attribute("aria-label"))
    await viewer.page.get_by_role("link", name="24 hours").click()
    # 1,000 statements of half a second in each quarter of an hour.
    words = re.compile(r"^Busy sessions: .* now, 0\.56 at most$")
    await expect(busy).to_have_accessible_name(words)
    assert (await viewer.open(f"/console/tenants/{slug}?hours=0")).status == 400


def noise_of(viewer: Viewer) -> Locator:
    return viewer.page.locator("section[aria-labelledby=h-noise]")


async def succeeded(viewer: Viewer) -> None:
    """The page that the button led to turns green."""
    await viewer.page.wait_for_url("**/console/operations/op_*")
    chip = viewer.page.locator(".heading .chip").first
    await expect(chip).to_have_text("succeeded", timeout=MOVED_MS)
