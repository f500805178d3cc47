"""Every page of the fleet: reads well for everybody, and opens to its roles only."""

from typing import Any

import pytest
from playwright.async_api import expect

from control_plane.domain.keys import PERMISSIONS
from tests.driver import Driver, fresh_slug
from tests.integration.console.conftest import SignIn

EVERYTHING = ("sales_ops", "operator", "security_admin", "auditor", "app")
# Every address without a subject, and the operation of the API that it shows or does.
PLACES = {
    "/console/provision": "createTenant",
    "/console/provision/bulk": "createTenant",
    "/console/operations": "listOperations",
    "/console/servers": "listServers",
    "/console/servers/pg-a": "getServer",
    "/console/servers/pg-a/drain": "drainServer",
    "/console/servers/pg-a/remove": "removeServer",
    "/console/enrol": "addServer",
    "/console/backups": "getBackupStatus",
    "/console/drills": "listDrills",
    "/console/rollouts": "listRollouts",
    "/console/rollouts/new": "startRollout",
    "/console/audit": "listAudit",
    "/console/audit/export": "listAudit",
    "/console/keys": "listKeys",
    "/console/keys/new": "createKey",
}


@pytest.mark.parametrize("role", ["sales_ops", "operator", "security_admin", "auditor"])
async def test_pages_open_to_their_roles_only(sign_in: SignIn, catalog: Any, role: str) -> None:
    viewer = await sign_in(role)
    shown = await viewer.page.locator("nav a").evaluate_all("all => all.map(a => a.pathname)")
    for path, permission in PLACES.items():
        allowed = role in PERMISSIONS[permission]
        answer = await viewer.context.request.get(f"{viewer.url}{path}")
        assert answer.status == (200 if allowed else 403), path
        assert allowed or path not in shown
    denied = await catalog.fetch(
        "SELECT action FROM audit_events WHERE actor = $1 AND outcome = 'denied'", viewer.email
    )
    expected = [one for one in PLACES.values() if role not in PERMISSIONS[one]]
    assert sorted(row["action"] for row in denied) == sorted(expected)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
async def test_no_serious_finding_and_no_sideways_scrolling(
    sign_in: SignIn, driver: Driver, width: int, scheme: str
) -> None:
    slug = fresh_slug("well-read-by-everybody")
    await driver.create(slug, name="A Clinic With A Rather Long Name Of Several Words")
    backup = await driver.back_up(slug)
    newest = (await driver.operations(tenant=slug))[0]
    viewer = await sign_in(*EVERYTHING, width=width, dark=scheme == "dark")
    paths = [path for path in PLACES if not path.endswith("/export")]
    paths += [f"/console/operations/{newest['id']}", f"/console/operations/{newest['id']}/cancel"]
    paths += [f"/console/backups/{backup}", f"/console/handover/{slug}"]
    paths += ["/console/audit?tenant=nobody-at-all", "/console/operations?state=cancelling"]
    for path in paths:
        await viewer.open(path)
        assert await viewer.serious_findings() == [], path
        assert await viewer.overflow() <= 0, path
    await viewer.open("/console/provision/bulk")
    await viewer.page.get_by_label("Paste the lines").fill("name,tier\nA Good One,\nBad,gold\n")
    await viewer.page.get_by_role("button", name="Check the list").click()
    await expect(viewer.page.get_by_role("heading", level=1)).to_have_text(
        "1 of 2 lines can be created"
    )
    assert await viewer.serious_findings() == []
    assert await viewer.overflow() <= 0
