"""S-01, S-04, S-05, S-11: nobody gets into somebody else's database, by any door."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

TENANTS = 4
NOT_ALLOWED = "42501"
RELAYED = "08P01"
WHO = "SELECT current_user::text AS login, tenant_id::text FROM cp_meta.identity"


@pytest.fixture(scope="module")
async def clinics(stack: Stack, token: str) -> list[dict[str, Any]]:
    """Tenants on both servers, with what their applications know of them."""
    import httpx  # noqa: PLC0415 - the session's client lives only as long as one test

    headers = {"Authorization": f"Bearer {token}"}
    url = stack.facts()["api_url"]
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        driver = Driver(client, Path())
        found = []
        for place in range(TENANTS):
            server = ("pg-a", "pg-b")[place % 2]
            slug = fresh_slug("isolated")
            tenant = await driver.create(slug, server=server)
            found.append(tenant | {"dsn": await driver.dsn(slug)})
        return found


async def attempt(dsn: dict[str, Any], host: str, port: int, database: str) -> tuple[str, str]:
    """(``in``, tenant id) or (``out``, SQLSTATE) for this tenant's login at one door."""
    password = dsn["dsn"].split("://", 1)[1].split(":", 1)[1].rsplit("@", 1)[0]
    try:
        connection = await asyncpg.connect(
            host=host,
            port=port,
            user=dsn["login"],
            password=password,
            database=database,
            statement_cache_size=0,
            timeout=5,
        )
    except asyncpg.PostgresError as error:
        return "out", error.sqlstate or ""
    try:
        row = await connection.fetchrow(WHO)
        assert row is not None
        return "in", row["tenant_id"]
    finally:
        await connection.close()


async def test_through_every_pooler_and_endpoint(clinics: list[dict[str, Any]]) -> None:
    doors = [
        (mine, theirs, pooler, suffix)
        for mine in clinics
        for theirs in clinics
        for pooler in mine["dsn"]["poolers"]
        for suffix in ("", "_session")
    ]
    answers = await asyncio.gather(
        *(
            attempt(mine["dsn"], pooler["host"], pooler["port"], theirs["slug"] + suffix)
            for mine, theirs, pooler, suffix in doors
        )
    )
    identities: dict[str, set[str]] = {}
    for (mine, theirs, _, _), (outcome, detail) in zip(doors, answers, strict=True):
        if mine is theirs:
            assert outcome == "in", detail
            identities.setdefault(mine["slug"], set()).add(detail)
        else:
            # PgBouncer relays what Postgres said: no right to connect, or no such login there.
            assert (outcome, detail in (NOT_ALLOWED, RELAYED)) == ("out", True)
    assert all(len(found) == 1 for found in identities.values())
    assert len(set.union(*identities.values())) == TENANTS


async def test_at_the_servers_themselves(clinics: list[dict[str, Any]], stack: Stack) -> None:
    servers = {server["name"]: server for server in stack.facts()["servers"]}
    for mine in clinics:
        server = servers[mine["server"]]
        own = mine["dsn"]["login"].removesuffix("_app_a").removesuffix("_app_b")
        for theirs in (c for c in clinics if c["server"] == mine["server"]):
            name = theirs["dsn"]["login"].removesuffix("_app_a").removesuffix("_app_b")
            outcome = await attempt(mine["dsn"], server["host"], server["port"], name)
            wanted = "in" if name == own else "out"
            assert outcome[0] == wanted, (mine["slug"], theirs["slug"], outcome)
        for shared in ("postgres", "template1"):
            outcome = await attempt(mine["dsn"], server["host"], server["port"], shared)
            assert outcome == ("out", NOT_ALLOWED)


async def test_no_login_reaches_a_poolers_console(clinics: list[dict[str, Any]]) -> None:
    """S-13."""
    for pooler in clinics[0]["dsn"]["poolers"]:
        outcome, _ = await attempt(clinics[0]["dsn"], pooler["host"], pooler["port"], "pgbouncer")
        assert outcome == "out"


FORBIDDEN = [
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "SELECT pg_read_file('postgresql.conf')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CREATE ROLE intruder",
    "CREATE DATABASE intruder",
    "CREATE SCHEMA intruder",
    "CREATE TABLE public.intruder (id int)",
    "DROP TABLE patients.patient",
    "DELETE FROM patients.patient",
    "TRUNCATE patients.patient",
    "ALTER TABLE patients.patient DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "UPDATE cp_meta.identity SET state = 'previous'",
    "SET ROLE cp_dbowner",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_an_application_login_may_not(clinics: list[dict[str, Any]], statement: str) -> None:
    """S-04."""
    connection = await asyncpg.connect(clinics[0]["dsn"]["dsn"], statement_cache_size=0)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_shared_catalogs_name_no_other_tenant(clinics: list[dict[str, Any]]) -> None:
    """S-05: what any login can read of the server names no slug and no person."""
    connection = await asyncpg.connect(clinics[0]["dsn"]["dsn"], statement_cache_size=0)
    try:
        rows = await connection.fetch(
            """SELECT datname::text AS words FROM pg_database
               UNION ALL SELECT rolname::text FROM pg_roles
               UNION ALL SELECT setconfig::text FROM pg_db_role_setting
               UNION ALL SELECT description FROM pg_shdescription
               UNION ALL SELECT coalesce(application_name, '') FROM pg_stat_activity"""
        )
    finally:
        await connection.close()
    words = " ".join(row["words"] or "" for row in rows)
    for other in clinics[1:]:
        assert other["slug"] not in words
        assert other["name"] not in words
    assert "SCRAM-SHA-256" not in words
