"""The chain of audit seals through a restore, its undo, and an unarchive from an older backup."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.conftest import Cli
from tests.driver import Driver, fresh_slug

UPKEEP_SECONDS = 60.0
_WRITE = "INSERT INTO public.city (country_code, region, name) VALUES ('CH', 'ZH', $1)"
_MINE = "purpose = 'primary' AND tenant_id = (SELECT id FROM tenants WHERE slug = $1)"


class Clinic:
    """One clinic that is written to and looked after."""

    def __init__(self, driver: Driver, catalog: Any, cli: Cli) -> None:
        self.slug = fresh_slug("sealed")
        self.driver = driver
        self._catalog = catalog
        self._cli = cli
        self._city = 0

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """A line is written and not yet committed."""
        self._city += 1
        door = await self.driver.dsn(self.slug)
        connection = await asyncpg.connect(door["dsn"], statement_cache_size=0)
        try:
            async with connection.transaction():
                await connection.execute("SELECT set_config('app.user_id', 'dr-ada', true)")
                await connection.execute(_WRITE, f"{self.slug} {self._city}")
                yield
        finally:
            await connection.close()

    async def seal(self) -> None:
        """One more line, and it is sealed."""
        async with self.writing():
            pass
        await self.look_after()

    async def look_after(self) -> None:
        """The turn of upkeep that seals and anchors what is settled; nothing is wrong."""
        await self._catalog.execute(
            f"""UPDATE databases SET created_at = created_at - interval '1 hour',
                       upkeep_done_at = NULL, upkeep_due_at = clock_timestamp()
                WHERE {_MINE}""",  # noqa: S608 - the line above
            self.slug,
        )
        done = f"SELECT upkeep_done_at, upkeep_problem FROM databases WHERE {_MINE}"  # noqa: S608
        async with asyncio.timeout(UPKEEP_SECONDS):
            while (row := await self._catalog.fetchrow(done, self.slug))["upkeep_done_at"] is None:
                await asyncio.sleep(0.2)
        assert row["upkeep_problem"] is None

    async def archive(self) -> None:
        path = f"/v1/tenants/{self.slug}/archives"
        await self.driver.finish(await self.driver.call("POST", path))

    async def unarchive(self) -> None:
        path = f"/v1/tenants/{self.slug}/archives"
        await self.driver.finish(await self.driver.call("DELETE", path))

    async def move(self, server: str) -> None:
        path = f"/v1/tenants/{self.slug}/moves"
        await self.driver.finish(await self.driver.call("POST", path, json={"server": server}))
        done = await self.driver.call("POST", f"{path}/finish", json={"without_backup": True})
        await self.driver.finish(done)

    async def assert_verified(self, blocks: int) -> None:
        shown = await asyncio.to_thread(self._cli, "audit", "verify", self.slug)
        assert shown.code == 0, shown.stdout
        assert f"in {blocks} blocks, {blocks} anchored" in shown.stdout
        await self.driver.assert_clean()


@pytest.fixture
async def clinic(driver: Driver, catalog: Any, cli: Cli) -> Clinic:
    made = Clinic(driver, catalog, cli)
    await driver.create(made.slug, server="pg-a")
    return made


async def test_seals_go_on_after_a_restore_and_after_each_undo(clinic: Clinic) -> None:
    await clinic.seal()
    backup = await clinic.driver.back_up(clinic.slug)
    await clinic.seal()
    await clinic.seal()
    await clinic.assert_verified(3)
    await clinic.driver.run(clinic.slug, "restore", backup_id=backup, target="in_place")
    await clinic.assert_verified(1)
    await clinic.seal()
    await clinic.assert_verified(2)
    await clinic.driver.run(clinic.slug, "restore_undo")
    await clinic.assert_verified(3)
    await clinic.seal()
    await clinic.assert_verified(4)
    await clinic.driver.run(clinic.slug, "restore_undo")
    await clinic.assert_verified(2)
    await clinic.seal()
    await clinic.assert_verified(3)


async def test_an_archive_that_is_older_than_the_last_seal_goes_on_by_itself(
    clinic: Clinic, catalog: Any
) -> None:
    """As after the loss of everything but the store: what was sealed after the backup is gone."""
    await clinic.seal()
    await clinic.archive()
    await catalog.execute(
        """INSERT INTO audit_seals
           SELECT tenant_id, 2, last_seq + 1, last_seq + 1, 1, sha256('lost'), sealed_at
             FROM audit_seals WHERE tenant_id = (SELECT id FROM tenants WHERE slug = $1)""",
        clinic.slug,
    )
    await clinic.unarchive()
    await clinic.assert_verified(1)
    await clinic.seal()
    await clinic.assert_verified(2)


async def test_the_first_seal_on_a_server_waits_for_no_writer(clinic: Clinic) -> None:
    """Nor does any writer wait for it, as all would while it reads a log that has grown."""
    async with clinic.writing():
        await clinic.look_after()
    await clinic.seal()
    await clinic.move("pg-b")
    async with clinic.writing():
        await clinic.look_after()
    await clinic.seal()
    await clinic.assert_verified(2)
