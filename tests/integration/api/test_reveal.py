"""S-25, S-26: a DSN is recorded before it is shown, shown to one request, and never stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from control_plane.catalog import databases, tenants
from control_plane.router.credentials import open_credential
from tests.integration.api.conftest import OWN
from tests.integration.api.world import World

PATH = f"/v1/tenants/{OWN}/dsn"


async def password_of(world: World, slug: str) -> str:
    async with world.ports.catalog.connection() as db:
        tenant = await tenants.find(db, slug)
        credential = await databases.credential_in(db, tenant.id, "active")
    return open_credential(world.ports.keyring, credential).reveal()


async def test_the_dsn_is_the_tenants_own(world: World) -> None:
    async with world.client(world.tokens["own app"]) as client:
        transaction = await client.post(PATH)
        session = await client.post(PATH, json={"pool": "session"})
    assert (transaction.status_code, session.status_code) == (200, 200)
    assert transaction.headers["cache-control"] == "no-store"
    body = transaction.json()
    dsn = urlsplit(body["dsn"])
    assert unquote(dsn.password or "") == await password_of(world, OWN)
    assert (dsn.username, dsn.path) == (body["login"], f"/{OWN}")
    assert (dsn.hostname, dsn.port) == (body["host"], body["port"]) == ("127.0.0.1", 6432)
    assert body["expires_at"] is None
    assert body["driver_hints"]["asyncpg"] == "statement_cache_size=0"
    assert session.json()["database"] == f"{OWN}_session"


async def test_every_reveal_is_one_audit_row(world: World) -> None:
    body = {"reason": "start of the app"}
    async with world.client(world.tokens["app"]) as client:
        answers = [await client.post(PATH, json=body) for _ in range(5)]
    leases = [answer.json()["lease_id"] for answer in answers]
    assert len(set(leases)) == 5
    async with world.ports.catalog.connection() as db:
        rows = await db.fetch(
            """SELECT actor, host(address) AS address, reason, subject, facts, audit_events::text
               FROM audit_events
               WHERE action = 'dsn.reveal' AND facts->>'lease_id' = ANY($1)""",
            leases,
        )
    assert len(rows) == 5
    secret = await password_of(world, OWN)
    for row in rows:
        assert (row["actor"], row["address"], row["subject"]) == ("app", "127.0.0.1", OWN)
        assert row["reason"] == "start of the app"
        assert secret not in row["audit_events"]


@asynccontextmanager
async def refusing_audit(world: World) -> AsyncIterator[None]:
    """The audit log takes no reveal: a real failure inside the catalog."""
    async with world.ports.catalog.connection() as db:
        await db.execute(
            """CREATE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN RAISE EXCEPTION 'no room for %', NEW.facts USING ERRCODE = '53100'; END $$"""
        )
        await db.execute(
            """CREATE TRIGGER refuse_audit BEFORE INSERT ON audit_events FOR EACH ROW
               WHEN (NEW.action = 'dsn.reveal') EXECUTE FUNCTION refuse_audit()"""
        )
        try:
            yield
        finally:
            await db.execute("DROP FUNCTION refuse_audit CASCADE")


async def test_without_an_audit_row_there_is_no_secret(world: World) -> None:
    secret = await password_of(world, OWN)
    headers = {"Idempotency-Key": "reveal-without-audit"}
    async with refusing_audit(world), world.client(world.tokens["app"]) as client:
        refused = await client.post(PATH, headers=headers)
    assert refused.status_code == 503
    assert refused.json()["code"] == "catalog_unavailable"
    assert secret not in refused.text
    assert "postgresql://" not in refused.text
    async with world.client(world.tokens["app"]) as client:
        shown = await client.post(PATH, headers=headers)
    assert secret in shown.json()["dsn"]


async def test_a_repeat_gets_the_lease_and_not_the_secret(world: World) -> None:
    headers = {"Idempotency-Key": "reveal-once"}
    async with world.client(world.tokens["app"]) as client:
        first = await client.post(PATH, headers=headers)
        again = await client.post(PATH, headers=headers)
    assert first.json()["dsn"] is not None
    assert (again.status_code, again.json()["dsn"]) == (200, None)
    assert again.json()["lease_id"] == first.json()["lease_id"]
    assert again.headers["cache-control"] == "no-store"
    secret = await password_of(world, OWN)
    async with world.ports.catalog.connection() as db:
        kept = await db.fetch("SELECT idempotency_keys::text AS whole FROM idempotency_keys")
    assert not any(secret in row["whole"] for row in kept)


async def test_nothing_secret_reaches_the_log(world: World) -> None:
    async with world.client(world.tokens["app"]) as client:
        await client.post(PATH, json={"reason": "log-canary"})
    log = world.log.read_text()
    assert f'"path":"{PATH}"' in log
    assert await password_of(world, OWN) not in log
    assert world.tokens["app"] not in log
    assert "log-canary" not in log


async def test_before_the_tenant_is_ready_the_operation_is_named(
    world: World, admin: httpx.AsyncClient
) -> None:
    operation = await world.new_tenant("not-ready-yet")
    answer = await admin.post("/v1/tenants/not-ready-yet/dsn")
    assert answer.status_code == 409
    assert answer.json()["operation"] == operation["id"]
    assert operation["id"] in answer.json()["detail"]


async def test_a_suspended_tenant_has_no_dsn(world: World, admin: httpx.AsyncClient) -> None:
    await world.active_tenant("suspended-clinic")
    async with world.ports.catalog.transaction() as db:
        tenant = await tenants.find(db, "suspended-clinic")
        await tenants.change_state(db, tenant.id, expected="active", wanted="suspended")
    answer = await admin.post("/v1/tenants/suspended-clinic/dsn")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    assert "suspended" in answer.json()["detail"]


async def test_break_glass_says_why(world: World) -> None:
    async with world.client(world.tokens["breakglass"]) as client:
        silent = await client.post(PATH)
        spoken = await client.post(PATH, json={"reason": "incident 42"})
    assert silent.status_code == 422
    assert [error["field"] for error in silent.json()["errors"]] == ["reason"]
    assert spoken.json()["dsn"] is not None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"pool": "statement"}, "pool"),
        ({"reason": ""}, "reason"),
        ({"password": "please"}, "password"),
    ],
)
async def test_a_reveal_that_cannot_be_meant(
    admin: httpx.AsyncClient, body: dict[str, str], field: str
) -> None:
    answer = await admin.post(PATH, json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
