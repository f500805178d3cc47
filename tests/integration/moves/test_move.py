"""A tenant moved over the running stack while it is written to."""

from tests.driver import Driver, fresh_slug


async def test_a_move_there_and_back(driver: Driver) -> None:
    slug = fresh_slug("mover")
    await driver.create(slug, server="pg-a")
    moved = await driver.call("POST", f"/v1/tenants/{slug}/moves", json={"server": "pg-b"})
    ended = await driver.over(moved, 120)
    print([(s["name"], s["state"], s["detail"], s["error"]) for s in ended["steps"]])
    assert ended["state"] == "succeeded"
    tenant = await driver.call("GET", f"/v1/tenants/{slug}")
    assert tenant["server"] == "pg-b"
    print(await driver.call("GET", f"/v1/tenants/{slug}/moves"))
    print(await driver.findings())
    back = await driver.call("POST", f"/v1/tenants/{slug}/moves/reverse")
    ended = await driver.over(back, 120)
    print([(s["name"], s["state"], s["detail"], s["error"]) for s in ended["steps"]])
    assert ended["state"] == "succeeded"
    await driver.assert_clean()
