"""Beat and workers by themselves: a turn that comes is a backup, a breach is told and mended."""

import asyncio
import time
from typing import Any

from control_plane.domain.names import parse
from deploy.local.stack import Stack
from tests.conftest import Cli
from tests.driver import Driver, fresh_slug

SECONDS = 90


async def eventually(catalog: Any, sql: str, *arguments: object) -> Any:
    """The first value that is there."""
    deadline = time.monotonic() + SECONDS
    while (value := await catalog.fetchval(sql, *arguments)) is None:
        assert time.monotonic() < deadline, sql
        await asyncio.sleep(0.2)
    return value


async def test_a_turn_that_comes_is_a_backup_that_mends_the_rpo(
    driver: Driver, cli: Cli, catalog: Any
) -> None:
    slug = fresh_slug("turn")
    tenant_id = parse("tn", (await driver.create(slug))["id"])
    options = ("--cron", "0 3 1 * *", "--rpo", "33d", "--timezone", "America/New_York")
    told = cli("schedule", "set", slug, *options)
    assert (told.code, told.stderr) == (0, "")
    # Beat gives every tenant its turn.
    await eventually(catalog, "SELECT due_at FROM backup_turns WHERE tenant_id = $1", tenant_id)
    await catalog.execute(
        "UPDATE tenants SET activated_at = activated_at - interval '34 days' WHERE id = $1",
        tenant_id,
    )
    breach = "SELECT seq FROM audit_events WHERE tenant_id = $1 AND action = $2"
    await eventually(catalog, breach, tenant_id, "backup.rpo_breached")
    assert "breached · everything up to" in cli("schedule", "show", slug).stdout
    await catalog.execute(
        """UPDATE backup_turns SET slot_at = clock_timestamp(), due_at = clock_timestamp()
           WHERE tenant_id = $1""",
        tenant_id,
    )
    state = "SELECT state FROM backups WHERE tenant_id = $1 AND state <> 'running'"
    assert await eventually(catalog, state, tenant_id) == "complete"
    row = await catalog.fetchrow(
        "SELECT cause, slot_at FROM backups WHERE tenant_id = $1", tenant_id
    )
    coming = await catalog.fetchval(
        "SELECT slot_at FROM backup_turns WHERE tenant_id = $1", tenant_id
    )
    assert (row["cause"], coming > row["slot_at"]) == ("schedule", True)
    await eventually(catalog, breach, tenant_id, "backup.rpo_mended")
    shown = cli("schedule", "show", slug).stdout
    assert "ok · everything up to" in shown
    assert "newest backup  bk_" in shown
    await driver.assert_clean()


async def test_the_end_of_a_backup_lets_the_next_one_begin_without_a_tick(
    driver: Driver, catalog: Any, stack: Stack
) -> None:
    first, waiting = fresh_slug("first"), fresh_slug("waiting")
    tenants = [parse("tn", (await driver.create(slug))["id"]) for slug in (first, waiting)]
    for tenant_id in tenants:
        await eventually(catalog, "SELECT due_at FROM backup_turns WHERE tenant_id = $1", tenant_id)
    await asyncio.to_thread(stack.halt, "beat")
    try:
        await catalog.execute(
            """UPDATE backup_turns SET slot_at = clock_timestamp(), due_at = clock_timestamp()
               WHERE tenant_id = $1""",
            tenants[1],
        )
        operation = await driver.call("POST", f"/v1/tenants/{first}/backups")
        await driver.finish(operation)
        state = "SELECT cause FROM backups WHERE tenant_id = $1 AND state = 'complete'"
        assert await eventually(catalog, state, tenants[1]) == "schedule"
    finally:
        await asyncio.to_thread(stack.restart, "beat")
