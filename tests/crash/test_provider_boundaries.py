"""A server created and deleted while its worker is failed before and after every step."""

from pathlib import Path

import pytest

from control_plane.domain.plans import PLANS, Kind
from deploy.local import provided
from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

PATH = "/v1/provided-servers"


@pytest.mark.parametrize("action", ["exception", "sigkill"])
async def test_create_then_delete(driver: Driver, stack: Stack, action: str) -> None:
    name = fresh_slug(f"prov-{action[:4]}")
    before = {one.key for one in provided.known(stack.layout)}

    def arm(kind: Kind) -> list[Path]:
        return [
            driver.arm(kind, step, moment, name, action)
            for step in PLANS[kind].steps
            for moment in ("before", "after")
        ]

    places = arm("create_server")
    body = {"name": name, "provider": "local", "tier": "dedicated"}
    ended = await driver.finish(await driver.call("POST", PATH, json=body), 240)
    assert left(places) == []
    assert min(step["attempts"] for step in ended["steps"]) >= 3
    made = [one.name for one in provided.known(stack.layout) if one.key not in before]
    assert made == [name], "one request, one server"
    assert [one["name"] for one in stack.facts()["servers"]].count(name) == 1
    server = await driver.call("GET", f"/v1/servers/{name}")
    assert server["state"] == "active"
    await driver.assert_clean()

    places = arm("delete_server")
    await driver.finish(await driver.call("DELETE", f"{PATH}/{name}"), 240)
    assert left(places) == []
    assert {one.key for one in provided.known(stack.layout)} == before
    assert name not in [one["name"] for one in stack.facts()["servers"]]
    await driver.assert_clean()


def left(places: list[Path]) -> list[str]:
    """The crash points that were never reached."""
    return [place.name for place in places if place.exists()]
