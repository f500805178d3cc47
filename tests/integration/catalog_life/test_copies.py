"""A restored copy of the session's catalog beside it: nobody works from it, whoever asks."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
import pytest
from litestar.testing import AsyncTestClient

from control_plane.adapters import clock
from control_plane.api.app import build_app
from control_plane.bootstrap import make_ports
from control_plane.catalog import catalog_life, leases
from control_plane.catalog.pool import Catalog
from control_plane.config import PoolerSettings, Secret, Settings
from control_plane.domain.errors import CatalogMismatch, CatalogNotAccepted
from control_plane.router.catalog_link import CatalogLink
from deploy.local.stack import Stack
from tests.integration.catalog_life.lost import Machine, machine_of
from workers.engine.tasks import Process


def as_administrator(stack: Stack, statement: LiteralString) -> None:
    facts = stack.facts()["catalog"]
    with psycopg.connect(
        host=facts["host"],
        port=facts["port"],
        user=facts["admin_user"],
        password=Path(facts["admin_password_file"]).read_text().strip(),
        dbname="postgres",
        autocommit=True,
    ) as connection:
        connection.execute(statement)


@pytest.fixture(scope="module")
def copy(stack: Stack) -> Iterator[Machine]:
    """A machine whose catalog is another database: restored, and not accepted."""
    machine = machine_of(stack)
    machine("admin", "catalog", "backup")
    as_administrator(stack, "CREATE DATABASE tenantry_copy OWNER tenantry")
    dsn = machine.environment["TENANTRY_CATALOG_DSN"].rpartition("/")[0] + "/tenantry_copy"
    restored = Machine({**machine.environment, "TENANTRY_CATALOG_DSN": dsn})
    try:
        restored("admin", "catalog", "restore")
        yield restored
    finally:
        as_administrator(stack, "DROP DATABASE tenantry_copy WITH (FORCE)")


@pytest.fixture
def settings(copy: Machine, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("TENANTRY_")]:
        monkeypatch.delenv(name)
    for name, value in copy.environment.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


@pytest.fixture
async def catalog(settings: Settings) -> AsyncIterator[Catalog]:
    opened = Catalog(settings)
    await opened.open(max_size=2)
    yield opened
    await opened.close()


async def test_no_worker_takes_an_operation(catalog: Catalog) -> None:
    operation = clock.new_id()
    async with catalog.connection() as db:
        await db.execute(
            """INSERT INTO operations (id, kind, subject, queue, actor, deadline)
               VALUES ($1, 'rekey', 'root key', 'transfer', 'test', now() + interval '1 hour')""",
            operation,
        )
        assert await leases.due(db, 10) == []
        assert await leases.claim(db, operation, owner="test", seconds=5) is None
        state = await db.fetchval("SELECT state FROM operations WHERE id = $1", operation)
    assert state == "pending"


def test_no_tick_does_anything(settings: Settings) -> None:
    """Whatever beat asks for ends before it begins."""
    done: list[str] = []

    async def work() -> None:
        done.append("worked")

    process = Process(settings, {})
    process.run(work)
    process.close()
    assert done == []


async def test_a_process_says_which_catalog_it_can_work_on(catalog: Catalog) -> None:
    """Newer ones, unless what it needs was taken away; never one that lacks what it needs."""
    move = "UPDATE alembic_version SET version_num = $1"
    async with catalog.connection() as db:
        trying = db.transaction()
        await trying.start()
        await catalog_life.accept(db, "test")
        await catalog_life.require_usable(db)
        await db.execute(move, "9999")
        await catalog_life.require_usable(db)
        await db.execute("UPDATE catalog_place SET needs_code = '9998'")
        with pytest.raises(CatalogMismatch, match="from the new release"):
            await catalog_life.require_usable(db)
        await db.execute(move, "0005")
        with pytest.raises(CatalogMismatch, match="tenantry-run migrate"):
            await catalog_life.require_usable(db)
        await trying.rollback()


async def test_agents_serve_what_they_served(catalog: Catalog, tmp_path: Path) -> None:
    pooler = PoolerSettings("p9", "cell-1", "127.0.0.1", 1, tmp_path, tmp_path, Secret("x"))
    with pytest.raises(CatalogNotAccepted):
        async with CatalogLink.open(catalog, pooler, lambda: None):
            pass


async def test_the_api_shows_it_and_changes_nothing(settings: Settings, token: str) -> None:
    app = build_app(make_ports(settings))
    headers = {"Authorization": f"Bearer {token}"}
    async with AsyncTestClient(app) as api:
        api.headers.update(headers)
        looked = await api.get("/v1/tenants")
        assert looked.status_code == httpx.codes.OK
        refused = await api.post("/v1/tenants", json={"slug": "too-early", "name": "Too early"})
    problem: dict[str, Any] = refused.json()
    assert (refused.status_code, problem["code"]) == (503, "catalog_not_accepted")
    assert "tenantry admin catalog accept" in problem["detail"]


async def test_the_doctor_says_so_until_it_is_accepted(copy: Machine, catalog: Catalog) -> None:
    found = copy.run("admin", "doctor")
    assert "is a restored copy" in found.stdout
    copy("admin", "catalog", "accept")
    try:
        assert "is a restored copy" not in copy.run("admin", "doctor").stdout
    finally:
        async with catalog.connection() as db:
            await db.execute("UPDATE catalog_place SET system_identifier = 0")
