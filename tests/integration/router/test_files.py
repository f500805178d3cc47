"""RELOAD says yes to anything; the agent looks, puts back, repairs and tells."""

import asyncio
from pathlib import Path

import msgspec
import psycopg
import pytest

from control_plane.catalog import routes
from control_plane.catalog.routes import WantedRoute
from control_plane.domain.errors import PoolerUnavailable
from control_plane.router.pgbouncer_config import parse_databases, render_databases
from control_plane.router.pgbouncer_console import Console
from control_plane.router.pooler import LocalPooler, Rendered
from tests.integration.router.conftest import traffic
from tests.integration.router.processes import PoolerHome
from tests.integration.router.world import Clinic, World, eventually


async def test_pgbouncer_still_lies_about_a_broken_file(world: World) -> None:
    """The fact that the read-back stands on."""
    home = PoolerHome(world.base, "liar", "cell-liar", world.environment)
    home.prepare()
    home.start_pgbouncer()
    console = Console(home.settings)
    try:
        before = await console.databases()
        home.file("databases.ini").write_text("rubbish\n")
        await console.reload()
        assert await console.databases() == before
    finally:
        await console.close()
        home.stop()


async def test_what_pgbouncer_does_not_take_is_put_back(world: World) -> None:
    clinic = await world.clinic("unbroken-clinic")
    await world.publish(clinic)
    wanted = await _route_of(world, clinic)
    home = PoolerHome(world.base, "alone", "cell-alone", world.environment)
    home.prepare()
    home.start_pgbouncer()
    pooler = LocalPooler(home.settings)
    try:
        good = pooler.render([wanted], [])
        await pooler.serve(good)
        assert pooler.serves(good)
        async with await world.connect(clinic, home) as inside:
            await inside.execute("SELECT 1")
            broken = pooler.render([], [])
            texts = broken.texts | {"databases.ini": "[databases]\nacme = host\n"}
            with pytest.raises(PoolerUnavailable, match="did not take the new configuration"):
                await pooler.serve(msgspec.structs.replace(broken, texts=texts))
            await inside.execute("SELECT 1")
        assert home.file("databases.ini").read_text() == good.texts["databases.ini"]
        assert "acme-no-more" not in await pooler.console.databases()
        await pooler.serve(broken)
        assert await pooler.console.databases() == {}
    finally:
        await pooler.console.close()
        home.stop()


async def test_pgbouncer_reads_every_name_that_a_slug_may_have(world: World) -> None:
    clinic = await world.clinic("model-clinic")
    await world.publish(clinic)
    model = await _route_of(world, clinic)
    slugs = ["databases", "users", "include", "all", "user", "a-b", "x--y", "a1b", "a" + "9" * 39]
    hosts = ["::1", "10.0.0.1", "pg.example.com", "localhost", "fd00::1", "a", "b-c.d", "e0", "f.g"]
    made = [
        msgspec.structs.replace(model, alias=slug, host=host, port=65535, pool_size=10_000)
        for slug, host in zip(slugs, hosts, strict=True)
    ]
    home = PoolerHome(world.base, "names", "cell-names", world.environment)
    home.prepare()
    home.start_pgbouncer()
    pooler = LocalPooler(home.settings)
    try:
        users = pooler.render(made[:1], [])
        texts = users.texts | {"databases.ini": render_databases(made, home.settings.directory)}
        entries = parse_databases(texts["databases.ini"])
        await pooler.serve(msgspec.structs.replace(users, texts=texts, entries=entries))
        assert len(await pooler.console.databases()) == 2 * len(slugs)
    finally:
        await pooler.console.close()
        home.stop()


async def _route_of(world: World, clinic: Clinic) -> WantedRoute:
    async with world.catalog.connection() as db:
        wanted = await routes.wanted(db, clinic.cell_id, newer_than=-1)
    return next(route for route in wanted if route.tenant_id == clinic.id)


async def test_a_file_that_cannot_be_written_is_reported_and_recovers(world: World) -> None:
    clinic = await world.published_clinic("blocked-clinic")
    late = await world.clinic("late-clinic")
    home = world.poolers[0]
    path = home.file("databases.ini")
    kept = path.read_text()
    async with traffic(world, clinic) as seen:
        path.unlink()
        path.mkdir()
        try:
            version = await world.publish(late)
            await eventually(lambda: _has_problem(world, home, "cannot write"))
            assert (await world.pooler(home.settings.name)).served_version < version
            async with await world.connect(clinic, home) as new:
                await new.execute("SELECT 1")
        finally:
            path.rmdir()
        await world.serving(late, version, 15)
        await eventually(lambda: _has_no_problem(world, home))
    assert path.read_text() != kept
    assert seen.errors == []
    async with await world.connect(late, home) as client:
        await client.execute("SELECT 1")


@pytest.mark.parametrize("text", ["rubbish\n", "[databases]\n"])
async def test_a_file_changed_by_hand_is_written_anew(world: World, text: str) -> None:
    clinic = await world.published_clinic(f"mended-{len(text)}")
    home = world.poolers[0]
    path = home.file("databases.ini")
    kept = path.read_text()
    path.write_text(text)
    async with await world.connect(clinic, home) as client:
        await client.execute("SELECT 1")
        await eventually(lambda: _has_problem(world, home, "databases.ini was changed"))
    await eventually(lambda: _has_no_problem(world, home))
    assert path.read_text() == kept


async def test_a_reload_of_a_file_changed_by_hand_is_undone(world: World) -> None:
    clinic = await world.published_clinic("reloaded-clinic")
    home = world.poolers[1]
    home.file("databases.ini").write_text("server_tls_sslmode = disable\n[databases]\n")
    console = Console(home.settings)
    await console.reload()
    with pytest.raises(psycopg.OperationalError, match="no such database"):
        await world.connect(clinic, home)
    await eventually(lambda: _takes_in(console, clinic.slug))
    async with await world.connect(clinic, home) as client:
        await client.execute("SELECT 1")
    await console.close()


async def test_a_second_start_changes_no_file(world: World) -> None:
    home = world.poolers[0]
    before = {path.name: path.read_text() for path in home.settings.directory.iterdir()}
    await asyncio.to_thread(home.prepare)
    after = {path.name: path.read_text() for path in home.settings.directory.iterdir()}
    assert after == before
    pooler = LocalPooler(home.settings)
    empty: Rendered = pooler.render([], [])
    first = before["users.txt"].splitlines()[0]
    assert empty.texts["users.txt"].splitlines()[0] == first


async def test_a_link_is_neither_followed_nor_kept(world: World, tmp_path: Path) -> None:
    home = PoolerHome(world.base, "linked", "cell-linked", world.environment)
    secret = tmp_path / "secret"
    secret.write_text("only for root\n")
    home.file("users.txt").symlink_to(secret)
    await asyncio.to_thread(home.prepare)
    assert not home.file("users.txt").is_symlink()
    assert home.file("users.txt").read_text().startswith('"tenantry_agent" ')
    assert secret.read_text() == "only for root\n"


async def _takes_in(console: Console, alias: str) -> bool:
    return alias in await console.databases()


async def _has_problem(world: World, home: PoolerHome, words: str) -> bool:
    return words in ((await world.pooler(home.settings.name)).problem or "")


async def _has_no_problem(world: World, home: PoolerHome) -> bool:
    return (await world.pooler(home.settings.name)).problem is None
