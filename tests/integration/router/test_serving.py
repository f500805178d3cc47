"""A published route is served everywhere, to its own tenant only, within milliseconds."""

import asyncio
import os
import statistics

import psycopg
import pytest

from control_plane.catalog import routes
from control_plane.domain.names import Slot
from control_plane.router.barrier import wait_served
from control_plane.router.pgbouncer_config import CONSOLE_USER, served_digest
from tests.integration.router.conftest import traffic
from tests.integration.router.world import Clinic, World

SLOTS: tuple[Slot, Slot] = ("a", "b")


async def who_and_where(client: psycopg.AsyncConnection[tuple[object, ...]]) -> tuple[object, ...]:
    async with client:
        row = await (await client.execute("SELECT current_user, current_database()")).fetchone()
    assert row is not None
    return row


async def test_a_published_route_takes_its_tenant_in_everywhere(world: World) -> None:
    clinic = await world.published_clinic("served-clinic")
    database = await _database_of(world, clinic)
    for pooler in world.poolers:
        for session in (False, True):
            for slot in SLOTS:
                client = await world.connect(clinic, pooler, session=session, slot=slot)
                assert await who_and_where(client) == (clinic.roles.login(slot), database)


async def _database_of(world: World, clinic: Clinic) -> str:
    async with world.catalog.connection() as db:
        name: str = await db.fetchval(
            "SELECT name FROM databases WHERE id = $1", clinic.database_id
        )
    return name


async def test_nobody_else_gets_in(world: World) -> None:
    one, other = [await world.published_clinic(f"apart-{n}") for n in ("one", "two")]
    stranger = Clinic(other.id, one.slug, other.cell_id, other.database_id, other.passwords)
    liar = Clinic(one.id, one.slug, one.cell_id, one.database_id, other.passwords)
    for pooler in world.poolers:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            await (await world.connect(stranger, pooler)).execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
            await world.connect(liar, pooler)


async def test_the_console_is_not_for_the_network(world: World) -> None:
    clinic = await world.published_clinic("curious-clinic")
    settings = world.poolers[0].settings
    for user, password in (
        (CONSOLE_USER, settings.console_password),
        (clinic.roles.login_a, clinic.passwords["a"]),
    ):
        with pytest.raises(psycopg.OperationalError, match=r"login rejected|not allowed"):
            await psycopg.AsyncConnection.connect(
                host=settings.host,
                port=settings.port,
                user=user,
                password=password.reveal(),
                dbname="pgbouncer",
            )


async def test_the_files_are_private_and_hold_no_password(world: World) -> None:
    clinic = await world.published_clinic("secret-clinic")
    for pooler in world.poolers:
        directory = pooler.settings.directory.stat()
        for path in pooler.settings.directory.iterdir():
            found = path.stat()
            assert (found.st_mode & 0o777, found.st_uid) == (0o600, directory.st_uid), path
            text = path.read_text()
            assert clinic.passwords["a"].reveal() not in text
            assert pooler.settings.console_password.reveal() not in text
        users = pooler.file("users.txt").read_text().splitlines()
        assert all(line.split('" "')[1].startswith("SCRAM-SHA-256$") for line in users)
        assert pooler.settings.directory.stat().st_mode & 0o777 == 0o700
        assert os.path.samestat(directory, pooler.settings.directory.stat())


async def test_what_is_acknowledged_is_what_the_catalog_wants(world: World) -> None:
    clinic = await world.published_clinic("compared-clinic")
    async with world.catalog.connection() as db:
        wanted = await routes.wanted(db, clinic.cell_id, newer_than=-1)
        version = await routes.cell_version(db, clinic.cell_id)
    digest = served_digest(wanted)
    for home in world.poolers:
        pooler = await world.pooler(home.settings.name)
        assert (pooler.served_version, pooler.served_digest) == (version, digest)
        assert pooler.served_entries == 2 * len(wanted)
        assert (pooler.problem, pooler.alive, pooler.version) == (None, True, "1.18.0")


async def test_a_change_is_acknowledged_in_milliseconds(world: World) -> None:
    clinic = await world.published_clinic("timed-clinic")
    unchanged, changed = [], []
    for _ in range(20):
        unchanged.append(await world.serving(clinic, await world.touch(clinic)))
        await world.new_password(clinic, "b")
        changed.append(await world.serving(clinic, await world.touch(clinic)))
        await asyncio.sleep(0.02)
    for what, times in (("nothing to reload", unchanged), ("a new verifier", changed)):
        best, median, worst = (1000 * f(times) for f in (min, statistics.median, max))
        print(f"commit to both acks, {what}: {best:.1f} / {median:.1f} / {worst:.1f} ms")
    assert statistics.median(changed) < 0.1


async def test_waiting_for_a_version_names_who_is_late(world: World) -> None:
    clinic = await world.published_clinic("awaited-clinic")
    version = await world.touch(clinic)
    served = await wait_served(world.catalog, clinic.cell_id, version, seconds=5, need="all")
    assert served == []
    late = await wait_served(
        world.catalog, clinic.cell_id, version + 1_000, seconds=0.05, need="alive"
    )
    assert late == ["p1", "p2"]


async def test_a_login_changes_its_password_while_the_other_works(world: World) -> None:
    clinic = await world.published_clinic("rotated-clinic")
    async with traffic(world, clinic) as seen:
        for _ in range(10):
            old = clinic.passwords["b"]
            await world.new_password(clinic, "b")
            await world.serving(clinic, await world.touch(clinic))
            for pooler in world.poolers:
                login, _ = await who_and_where(await world.connect(clinic, pooler, slot="b"))
                assert login == clinic.roles.login_b
                outdated = Clinic(clinic.id, clinic.slug, clinic.cell_id, clinic.id, {"b": old})
                with pytest.raises(psycopg.OperationalError, match="SASL authentication failed"):
                    await world.connect(outdated, pooler, slot="b")
    assert seen.errors == []
    assert len(seen.ended) > 20
