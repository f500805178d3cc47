"""S-26: however often a request is sent, it happens once and always has the same answer."""

import asyncio

import httpx
import pytest

from tests.integration.api.world import World
from tests.integration.tenant_server.postgres_fixture import TenantServer


async def operations_of(world: World, slug: str) -> int:
    async with world.ports.catalog.connection() as db:
        return int(await db.fetchval("SELECT count(*) FROM operations WHERE subject = $1", slug))


async def test_two_hundred_at_once_are_one(world: World, admin: httpx.AsyncClient) -> None:
    body = {"slug": "stampede", "name": "Stampede"}
    headers = {"Idempotency-Key": "stampede-1"}
    answers = await asyncio.gather(
        *(admin.post("/v1/tenants", json=body, headers=headers) for _ in range(200))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert {answer.headers["location"] for answer in answers} == {
        f"/v1/operations/{answers[0].json()['id']}"
    }
    assert await operations_of(world, "stampede") == 1
    async with world.ports.catalog.connection() as db:
        rows = await db.fetchval(
            "SELECT count(*) FROM audit_events WHERE action = 'tenant.create' AND subject = $1",
            "stampede",
        )
    assert rows == 1


async def test_two_requests_for_one_slug(world: World, admin: httpx.AsyncClient) -> None:
    body = {"slug": "contested", "name": "Contested"}
    answers = await asyncio.gather(*(admin.post("/v1/tenants", json=body) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    loser = next(answer for answer in answers if answer.status_code == 409)
    assert loser.json()["code"] == "slug_taken"
    assert await operations_of(world, "contested") == 1


async def test_another_body_under_the_same_key(admin: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one-key-two-bodies"}
    first = await admin.post(
        "/v1/tenants", json={"slug": "first-body", "name": "a"}, headers=headers
    )
    second = await admin.post(
        "/v1/tenants", json={"slug": "second-body", "name": "a"}, headers=headers
    )
    assert first.status_code == 202
    assert (second.status_code, second.json()["code"]) == (422, "idempotency_key_reused")
    assert (await admin.get("/v1/tenants/second-body")).status_code == 404


async def test_another_path_under_the_same_key(admin: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one-key-two-paths"}
    await admin.post("/v1/tenants", json={"slug": "one-path", "name": "a"}, headers=headers)
    other = await admin.post("/v1/tenants/one-path/suspensions", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_keys_of_different_callers_do_not_meet(world: World) -> None:
    headers = {"Idempotency-Key": "shared-by-chance"}
    for slug, token in (
        ("caller-one", world.tokens["admin"]),
        ("caller-two", world.tokens["sales_ops"]),
    ):
        async with world.client(token) as client:
            answer = await client.post(
                "/v1/tenants", json={"slug": slug, "name": slug}, headers=headers
            )
        assert answer.json()["tenant"] == slug


async def test_an_enrolment_is_repeated_without_looking_at_the_server_again(
    world: World, admin: httpx.AsyncClient, catalog_postgres: TenantServer
) -> None:
    """Its administrator may be gone since: the first answer stands."""
    body = {
        "name": "pg-replayed",
        "host": "127.0.0.1",
        "port": catalog_postgres.port,
        "user": "passing_admin",
        "password": "passing",
    }
    headers = {"Idempotency-Key": "enrol-once"}
    postgres = await catalog_postgres.admin()
    await postgres.execute("CREATE ROLE passing_admin LOGIN SUPERUSER PASSWORD 'passing'")
    try:
        first = await admin.post("/v1/servers", json=body, headers=headers)
        await postgres.execute("DROP ROLE passing_admin")
        again = await admin.post("/v1/servers", json=body, headers=headers)
        other = await admin.post("/v1/servers", json={**body, "port": 1}, headers=headers)
    finally:
        await postgres.execute("DROP ROLE IF EXISTS passing_admin")
        await postgres.close()
        async with world.ports.catalog.connection() as db:
            await db.execute("UPDATE servers SET state = 'removed' WHERE name = 'pg-replayed'")
    assert (first.status_code, first.text) == (202, again.text)
    assert again.headers["location"] == f"/v1/operations/{first.json()['id']}"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refused_request_leaves_its_key_free(admin: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "refused-first"}
    refused = await admin.post(
        "/v1/tenants", json={"slug": "postgres", "name": "a"}, headers=headers
    )
    assert refused.status_code == 422
    taken = await admin.post(
        "/v1/tenants", json={"slug": "key-is-free", "name": "a"}, headers=headers
    )
    assert taken.status_code == 202


async def test_deletes_repeat_too(world: World, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/keys", json={"name": "gone", "roles": ["auditor"]})).json()
    headers = {"Idempotency-Key": "revoke-twice"}
    for _ in range(2):
        answer = await admin.delete(f"/v1/keys/{made['id']}", headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
    async with world.ports.catalog.connection() as db:
        rows = await db.fetchval(
            "SELECT count(*) FROM audit_events WHERE action = 'key.revoke' AND subject = $1",
            made["id"],
        )
    assert rows == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 201, "ümlaut"])
async def test_a_key_that_is_none(admin: httpx.AsyncClient, key: str) -> None:
    answer = await admin.post(
        "/v1/tenants",
        json={"slug": "bad-key", "name": "a"},
        headers=[(b"Idempotency-Key", key.encode())],
    )
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["Idempotency-Key"]


async def test_a_dry_run_changes_nothing(world: World, admin: httpx.AsyncClient) -> None:
    body = {"slug": "only-asking", "name": "a", "server": "pg-a"}
    answer = await admin.post("/v1/tenants", json=body, params={"dry_run": "true"})
    assert answer.status_code == 200
    assert answer.json()["steps"][0] == "create_roles"
    assert answer.json()["placement"]["server"] == "pg-a"
    assert "asked for" in answer.json()["placement"]["reason"]
    assert (await admin.get("/v1/tenants/only-asking")).status_code == 404
    assert await operations_of(world, "only-asking") == 0
    refused = await admin.post(
        "/v1/tenants", json={**body, "slug": "own-clinic"}, params={"dry_run": "true"}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "slug_taken")
