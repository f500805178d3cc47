"""S-23: API keys are random, shown once, stored as a hash, and end when they should."""

import datetime as dt
import re

import httpx
import pytest

from tests.integration.api.conftest import OWN
from tests.integration.api.world import World

WHO = "/v1/plans"


async def status_with(world: World, token: str) -> int:
    async with world.client(token) as client:
        return (await client.get(WHO)).status_code


async def test_a_key_works_until_the_call_after_its_revocation(
    world: World, admin: httpx.AsyncClient
) -> None:
    made = await admin.post("/v1/keys", json={"name": "short-lived", "roles": ["auditor"]})
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    token = made.json()["token"]
    assert re.fullmatch(r"tnk_[a-z2-7]{16}_[a-z2-7]{52}", token)
    assert await status_with(world, token) == 200
    revoked = await admin.delete(f"/v1/keys/{made.json()['id']}")
    assert (revoked.status_code, revoked.content) == (204, b"")
    async with world.client(token) as client:
        refused = await client.get(WHO)
    assert refused.status_code == 401
    assert "revoked" in refused.json()["detail"]


async def test_an_expired_key_is_told_so(world: World) -> None:
    token = await world.key("auditor", lifetime=dt.timedelta(days=1))
    async with world.ports.catalog.connection() as db:
        await db.execute(
            """UPDATE api_keys SET created_at = created_at - interval '2 days',
                      expires_at = expires_at - interval '2 days' WHERE lookup = $1""",
            token.split("_")[1],
        )
    async with world.client(token) as client:
        refused = await client.get(WHO)
    assert refused.status_code == 401
    assert "expired at" in refused.json()["detail"]


async def test_the_catalog_has_no_part_of_a_secret(world: World) -> None:
    secret = (await world.key("auditor")).split("_")[2]
    async with world.ports.catalog.connection() as db:
        rows = await db.fetch("SELECT api_keys::text AS whole FROM api_keys")
        events = await db.fetch("SELECT audit_events::text AS whole FROM audit_events")
    for row in [*rows, *events]:
        assert secret not in row["whole"]
        assert secret[:20] not in row["whole"]


async def test_what_is_not_a_key_is_refused(world: World) -> None:
    good = world.tokens["auditor"]
    lookup = good.split("_")[1]
    wrong = f"tnk_{lookup}_{'a' * 52}"
    unknown = f"tnk_{'a' * 16}_{'a' * 52}"
    for token in ("", "x", "tnk_", wrong, unknown, f"{good}a", good.upper()):
        assert await status_with(world, token) == 401, token
    async with httpx.AsyncClient(base_url=world.url) as client:
        for header in ("Basic Zm9v", good, f"bearer{good}"):
            answer = await client.get(WHO, headers={"Authorization": header})
            assert answer.status_code == 401, header
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_secret_and_an_unknown_key_look_alike(world: World) -> None:
    lookup = world.tokens["auditor"].split("_")[1]
    seen = set()
    for token in (f"tnk_{lookup}_{'a' * 52}", f"tnk_{'a' * 16}_{'a' * 52}"):
        async with world.client(token) as client:
            body = (await client.get(WHO)).json()
        seen.add(body["detail"])
    assert len(seen) == 1


async def test_a_replayed_creation_does_not_show_the_token_again(
    world: World, admin: httpx.AsyncClient
) -> None:
    body = {"name": "twice", "roles": ["auditor"]}
    headers = {"Idempotency-Key": "make-key-twice"}
    first = await admin.post("/v1/keys", json=body, headers=headers)
    again = await admin.post("/v1/keys", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["token"] is None
    assert "once" in again.json()["note"]
    async with world.ports.catalog.connection() as db:
        saved = await db.fetchval(
            "SELECT body::text FROM idempotency_keys WHERE key = 'make-key-twice'"
        )
    assert first.json()["token"] not in saved


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "roles": []}, "roles"),
        ({"name": "x", "roles": ["root"]}, "roles[0]"),
        ({"name": "system", "roles": ["auditor"]}, "name"),
        ({"name": "cli:root", "roles": ["auditor"]}, "name"),
        ({"name": "x", "roles": ["breakglass"], "days": 1}, "days"),
        ({"name": "x", "roles": ["auditor"], "days": 367}, "days"),
        ({"name": "x", "roles": ["app", "operator"], "tenant": OWN}, "roles"),
        ({"name": "x", "roles": ["auditor"], "tenant": OWN}, "roles"),
        ({"name": "x", "roles": ["auditor"], "admin": True}, "admin"),
    ],
)
async def test_a_key_that_must_not_be(
    admin: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    answer = await admin.post("/v1/keys", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_break_glass_lasts_hours(admin: httpx.AsyncClient) -> None:
    made = await admin.post("/v1/keys", json={"name": "fire", "roles": ["breakglass"]})
    ends = dt.datetime.fromisoformat(made.json()["expires_at"])
    left = ends - dt.datetime.now(dt.UTC)
    assert dt.timedelta(hours=7, minutes=55) < left <= dt.timedelta(hours=8)


async def test_the_list_shows_everything_but_keys(admin: httpx.AsyncClient) -> None:
    listed = await admin.get("/v1/keys", params={"limit": 200})
    assert "tnk_" not in listed.text
    newest = listed.json()["items"][0]
    assert newest["created_by"]
    assert set(newest) >= {"id", "name", "roles", "expires_at", "expired", "revoked_at"}


async def test_use_is_noted(world: World, admin: httpx.AsyncClient) -> None:
    token = await world.key("auditor")
    assert await status_with(world, token) == 200
    newest = (await admin.get("/v1/keys", params={"limit": 1})).json()["items"][0]
    assert newest["last_used_at"] is not None
