"""A new root key, the worker that brings everything under it failed before and after every step."""

import asyncio
from typing import Any

import asyncpg
import pytest

from control_plane.adapters import key_file
from deploy.local.stack import Stack
from tests.conftest import Cli
from tests.crash.test_upkeep_boundaries import ACTIONS, arm_every_boundary, until_all_were_hit
from tests.driver import Driver, fresh_slug


async def field_keys(driver: Driver, slug: str) -> list[dict[str, Any]]:
    shown = await driver.call("POST", f"/v1/tenants/{slug}/field-keys")
    keys: list[dict[str, Any]] = shown["keys"]
    return keys


async def admin(stack: Stack, cli: Cli, *arguments: str) -> None:
    """``tenantry admin …`` with the settings of the stack."""
    environment = stack.facts()["environment"]
    result = await asyncio.to_thread(cli, "admin", *arguments, environment=environment)
    assert result.code == 0, result.stderr


@pytest.mark.parametrize("action", ACTIONS)
async def test_rekey(driver: Driver, stack: Stack, cli: Cli, action: str) -> None:
    slugs = [fresh_slug(f"rekey-{action[:4]}") for _ in range(3)]
    await asyncio.gather(*(driver.create(slug) for slug in slugs))
    await driver.call("POST", f"/v1/tenants/{slugs[0]}/key-rotations")
    before = {slug: await field_keys(driver, slug) for slug in slugs}
    old = key_file.read(stack.layout.keyring).active
    await admin(stack, cli, "keys", "new-epoch")

    armed = arm_every_boundary(driver, "rekey", action)
    begun = await driver.call("POST", "/v1/keys/rekeys")
    rotating = [await driver.begin(slug, "rotate", grace_seconds=1) for slug in slugs]
    ended = await driver.finish(begun)
    await until_all_were_hit(armed)
    assert [step["state"] for step in ended["steps"]] == ["done", "done", "done"]
    assert min(step["attempts"] for step in ended["steps"]) >= 2
    await asyncio.gather(*(driver.finish(operation) for operation in rotating))

    await admin(stack, cli, "catalog", "backup")
    await admin(stack, cli, "keys", "retire-epoch", str(old), "--destroy-backups")
    assert str(old) not in key_file.read(stack.layout.keyring).epochs
    assert {slug: await field_keys(driver, slug) for slug in slugs} == before
    for slug in slugs:
        await (await asyncpg.connect((await driver.dsn(slug))["dsn"])).close()
    await driver.create(fresh_slug("after-rekey"))
    await driver.assert_clean()
