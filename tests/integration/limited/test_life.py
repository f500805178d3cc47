"""A tenant's whole life on servers whose administrators are no superusers."""

import asyncio
import io
import zipfile
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pyrage  # type: ignore[import-untyped]  # it comes without stubs
import pytest

from control_plane.config import Secret
from control_plane.domain.tenants import TIER_LIMITS
from tests.conftest import Cli
from tests.driver import Driver, fresh_slug
from tests.integration.limited.conftest import Enrolled
from tests.integration.tenant_server.postgres_fixture import LIMITED
from tests.integration.test_restores import cities, write

LONG_SECONDS = 240.0
_MINE = "purpose = 'primary' AND tenant_id = (SELECT id FROM tenants WHERE slug = $1)"


async def tenant(driver: Driver, slug: str) -> dict[str, Any]:
    found: dict[str, Any] = await driver.call("GET", f"/v1/tenants/{slug}")
    return found


async def until_true(catalog: Any, query: str, value: object, seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not await catalog.fetchval(query, value):
            await asyncio.sleep(0.2)


async def delete(driver: Driver, catalog: Any, slug: str) -> None:
    """For good: nothing of it is left on any server."""
    asked = {"confirm": slug, "grace_seconds": 0, "keep_backups_days": 0}
    await driver.finish(await driver.call("DELETE", f"/v1/tenants/{slug}", params=asked))
    gone = "SELECT state = 'deleted' FROM tenants WHERE slug = $1"
    await until_true(catalog, gone, slug)


async def looked_after(catalog: Any, slug: str) -> None:
    """The turn of upkeep that seals the audit log and refreshes reports; nothing is wrong."""
    await catalog.execute(
        f"""UPDATE databases SET created_at = created_at - interval '1 hour',
                   upkeep_done_at = NULL, upkeep_due_at = clock_timestamp()
            WHERE {_MINE}""",  # noqa: S608 - a constant of this file
        slug,
    )
    done = f"SELECT upkeep_done_at IS NOT NULL FROM databases WHERE {_MINE}"  # noqa: S608 - the same
    await until_true(catalog, done, slug)
    problem = f"SELECT upkeep_problem FROM databases WHERE {_MINE}"  # noqa: S608 - the same
    assert await catalog.fetchval(problem, slug) is None


async def assert_verified(cli: Cli, slug: str) -> None:
    shown = await asyncio.to_thread(cli, "audit", "verify", slug)
    assert shown.code == 0, shown.stdout


@pytest.fixture(params=("limited", "managed"))
def server(request: pytest.FixtureRequest) -> Enrolled:
    """Both kinds, one after the other."""
    found: Enrolled = request.getfixturevalue(request.param)
    return found


async def test_what_enrolment_found(driver: Driver, limited: Enrolled, managed: Enrolled) -> None:
    checks = {}
    for one in (limited, managed):
        shown = await driver.call("GET", f"/v1/servers/{one.name}")
        checks[one.name] = {
            check["name"]
            for check in shown["preflight"]
            if check["level"] != "ok"
            and check["name"].startswith(("administrator", "provisioner", "public_databases"))
        }
    assert checks == {
        limited.name: set(),
        managed.name: {
            *("administrator_row_security", "administrator_settings"),
            *("administrator_restore_points", "public_databases"),
        },
    }


async def test_a_login_its_limits_and_its_password(
    driver: Driver, server: Enrolled, catalog: Any, cli: Cli
) -> None:
    slug = fresh_slug("opened")
    made = await driver.create(slug, server=server.name)
    assert made["server"] == server.name
    first = (await driver.dsn(slug))["dsn"]
    await driver.run(slug, "limit", statement_timeout_ms=7000)
    await assert_limited(driver, server, catalog, slug)
    rotated = await asyncio.to_thread(cli, "rotate", slug, "--grace", "5m", "--wait")
    assert rotated.code == 0, rotated.stderr
    await write(driver, slug, "Leeds")
    second = (await driver.dsn(slug))["dsn"]
    assert second != first
    await driver.run(slug, "suspend")
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await asyncpg.connect(second, timeout=10)
    await driver.run(slug, "resume")
    assert await cities(driver, slug) == {"Leeds"}
    await driver.assert_clean()
    await a_login_that_drifted_is_told(driver, server, slug)
    async with asyncio.timeout(60):
        while not (await used(driver, slug))["total"]["commits"]:
            await asyncio.sleep(0.2)
    await delete(driver, catalog, slug)
    await driver.assert_clean()


async def assert_limited(driver: Driver, server: Enrolled, catalog: Any, slug: str) -> None:
    """In a session of its login at the server itself: pooled ones may be older than the limits."""
    door = await driver.dsn(slug)
    password = Secret(unquote(urlsplit(door["dsn"]).password or ""))
    name = await catalog.fetchval(f"SELECT name FROM databases WHERE {_MINE}", slug)  # noqa: S608
    connection = await server.cluster.login(door["login"], password, name)
    try:
        assert await connection.fetchval("SHOW statement_timeout") == "7s"
        enforced = await connection.fetchval(
            "SELECT setting::int / 1024 FROM pg_settings WHERE name = 'temp_file_limit'"
        )
    finally:
        await connection.close()
    wanted = TIER_LIMITS["standard"].login.temp_file_limit_mb
    assert enforced == (wanted if server.cluster.user == LIMITED else 0)


async def used(driver: Driver, slug: str) -> Any:
    return await driver.call("GET", f"/v1/tenants/{slug}/usage", params={"hours": 1})


async def a_login_that_drifted_is_told(driver: Driver, server: Enrolled, slug: str) -> None:
    """S-06: what a superuser of the server did to a login behind our back."""
    login = (await driver.dsn(slug))["login"]
    owner = await server.cluster.superuser()
    try:
        await owner.execute(f'ALTER ROLE "{login}" SET statement_timeout = 0')
        (finding,) = await driver.findings()
        assert (finding["code"], login in finding["message"]) == ("I-8", True)
        await driver.call("POST", "/v1/check/repairs")
        assert await driver.findings() == []
        await owner.execute(f'ALTER ROLE "{login}" BYPASSRLS')
        told = [one["message"] for one in await driver.findings()]
        assert any(login in one and "other limits" in one for one in told)
        assert any(f"role {login} has a privileged attribute" in one for one in told)
    finally:
        await owner.execute(f'ALTER ROLE "{login}" NOBYPASSRLS')
        await owner.close()


async def test_backups_restores_seals_and_exports(
    driver: Driver, server: Enrolled, catalog: Any, cli: Cli
) -> None:
    slug, copy = fresh_slug("kept"), fresh_slug("copied")
    await driver.create(slug, server=server.name)
    await write(driver, slug, "Leeds")
    await looked_after(catalog, slug)
    backup = await driver.back_up(slug)
    await driver.finish(await driver.verify(backup))
    await write(driver, slug, "York")
    await driver.run(slug, "restore", target="in_place", backup_id=backup)
    assert await cities(driver, slug) == {"Leeds"}
    await driver.run(slug, "restore_undo")
    assert await cities(driver, slug) == {"Leeds", "York"}
    beside = {"slug": copy, "server": server.name}
    await driver.run(slug, "restore", target=beside, backup_id=backup)
    assert await cities(driver, copy) == {"Leeds"}
    await looked_after(catalog, slug)
    await assert_verified(cli, slug)
    survey = {"tenants": [slug, copy]}
    await driver.finish(await driver.call("POST", "/v1/drift/surveys", json=survey))
    for one in (slug, copy):
        assert (await driver.call("GET", f"/v1/tenants/{one}/drift"))["changes"] == []
    assert "Leeds" in await exported(driver, slug)
    await driver.assert_clean()
    await delete(driver, catalog, copy)
    await delete(driver, catalog, slug)
    await driver.assert_clean()


async def exported(driver: Driver, slug: str) -> str:
    """The cities of an export."""
    identity = pyrage.x25519.Identity.generate()
    body = {"recipient": str(identity.to_public()), "keep_hours": 1}
    await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/exports", json=body))
    (made,) = (await driver.call("GET", f"/v1/tenants/{slug}/exports"))["items"]
    link = await driver.call("POST", f"/v1/exports/{made['id']}/links", json={})
    sealed = await driver.api.get(link["url"], headers={"Authorization": ""})
    bundle = zipfile.ZipFile(io.BytesIO(pyrage.decrypt(sealed.content, [identity])))
    return bundle.read("data/public/city.csv").decode()


async def test_put_away_and_taken_out_again(driver: Driver, server: Enrolled, catalog: Any) -> None:
    slug = fresh_slug("put-away")
    await driver.create(slug, server=server.name)
    await write(driver, slug, "Leeds")
    path = f"/v1/tenants/{slug}/archives"
    await driver.finish(await driver.call("POST", path))
    await driver.finish(await driver.call("DELETE", path, params={"server": server.name}))
    assert (await tenant(driver, slug))["server"] == server.name
    assert await cities(driver, slug) == {"Leeds"}
    await delete(driver, catalog, slug)
    await driver.assert_clean()
