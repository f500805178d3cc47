"""A clinic on the real stack, and its application connected by every driver and endpoint."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from deploy.local.stack import Stack
from tenant_template.client import ControlPlane, Tenancy, connect
from tenant_template.client.connect import Driver as SqlDriver
from tenant_template.client.control_plane import Pool
from tests.driver import Driver, fresh_slug

# More than the pooler has connections to the server, so that clients take turns on them.
MANY = {"pool_size": 30, "max_overflow": 0}


@dataclass(frozen=True)
class Clinic:
    """A tenant, and its application's way to the control plane."""

    slug: str
    control_plane: ControlPlane
    server: dict[str, Any]
    database: str

    async def inside(self) -> "asyncpg.Connection[asyncpg.Record]":
        """The administrator of its server, in its database."""
        return await asyncpg.connect(
            host=self.server["host"],
            port=self.server["port"],
            user=self.server["admin_user"],
            password=self.admin_password,
            database=self.database,
        )

    @property
    def admin_password(self) -> str:
        return Path(self.server["admin_password_file"]).read_text().strip()


@asynccontextmanager
async def connected(
    clinic: Clinic, driver: SqlDriver = "asyncpg", pool: Pool = "transaction", **options: Any
) -> AsyncIterator[Tenancy]:
    tenancy = await connect(clinic.control_plane, driver=driver, pool=pool, **options)
    try:
        yield tenancy
    finally:
        await tenancy.close()


async def new_clinic(driver: Driver, stack: Stack) -> Clinic:
    """A tenant with a key of its own for its application."""
    slug = fresh_slug("clinic-app")
    # On the server whose pg_dump every machine of the tests has.
    tenant = await driver.create(slug, server="pg-a")
    body = {"name": slug, "roles": ["app"], "tenant": slug}
    key = await driver.call("POST", "/v1/keys", json=body)
    login = (await driver.dsn(slug))["login"]
    server = next(s for s in stack.facts()["servers"] if s["name"] == tenant["server"])
    plane = ControlPlane(stack.facts()["api_url"], key["token"], slug)
    return Clinic(slug, plane, server, login.removesuffix("_app_a").removesuffix("_app_b"))


@pytest.fixture(scope="session")
async def pair(stack: Stack, token: str) -> tuple[Clinic, Clinic]:
    """Two clinics for the whole run."""
    headers = {"Authorization": f"Bearer {token}"}
    url = stack.facts()["api_url"]
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        driver = Driver(client, Path())
        return await new_clinic(driver, stack), await new_clinic(driver, stack)


@pytest.fixture
def clinic(pair: tuple[Clinic, Clinic]) -> Clinic:
    return pair[0]


@pytest.fixture(params=["transaction", "session"])
def pool(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["asyncpg", "psycopg"])
def sql_driver(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def tenancy(clinic: Clinic, sql_driver: SqlDriver, pool: Pool) -> AsyncIterator[Tenancy]:
    """The application by one driver through one endpoint."""
    async with connected(clinic, sql_driver, pool) as tenancy:
        yield tenancy
