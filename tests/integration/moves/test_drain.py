"""A server emptied by moves, in a stack of its own: everything there moves."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.local.options import StackOptions
from deploy.local.stack import Stack
from tests.conftest import FAST_POSTGRES, FAST_TENANTRY
from tests.driver import Driver, fresh_slug

TENANTS = 3
SECONDS = 240


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    home = Path(tempfile.mkdtemp(prefix="tenantry-drain-", dir="/tmp"))
    started = Stack(
        StackOptions(
            home=home,
            attached=True,
            demo=False,
            postgres_settings=FAST_POSTGRES,
            environment=FAST_TENANTRY,
        )
    )
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(home)


async def test_a_server_is_emptied(own_stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {own_stack.layout.token.read_text().strip()}"}
    url = own_stack.facts()["api_url"]
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as api:
        driver = Driver(api, own_stack.layout.home)
        slugs = [fresh_slug("leaves") for _ in range(TENANTS)]
        await asyncio.gather(*(driver.create(slug, server="pg-a") for slug in slugs))
        await driver.create(fresh_slug("stays"), server="pg-b")
        body = {"move": True, "moves_at_once": 2}
        drained = await driver.call("POST", "/v1/servers/pg-a/drain", json=body)
        assert drained["state"] == "draining"
        async with asyncio.timeout(SECONDS):
            while await servers_of(driver, slugs) != {"pg-b"}:
                await asyncio.sleep(0.5)
        await driver.settle()
        for slug in slugs:
            assert (await driver.dsn(slug))["database"] == slug
        kept = await driver.api.delete("/v1/servers/pg-a")
        assert kept.status_code == 409
        assert "tenantry move finish" in kept.json()["detail"]
        for slug in slugs:
            path = f"/v1/tenants/{slug}/moves/finish"
            await driver.finish(
                await driver.call("POST", path, json={"without_backup": True}), SECONDS
            )
        await driver.assert_clean()


async def servers_of(driver: Driver, slugs: list[str]) -> set[str]:
    return {(await driver.call("GET", f"/v1/tenants/{slug}"))["server"] for slug in slugs}
