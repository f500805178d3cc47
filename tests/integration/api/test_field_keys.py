"""The keys of a tenant's fields: made once, recorded before they are shown, never stored plain."""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from control_plane.adapters.keyring import Keyring
from control_plane.catalog import tenant_keys, tenants
from control_plane.catalog.tenant_keys import TenantKey
from control_plane.domain.errors import KeyUnavailable
from tests.integration.api.conftest import OTHER, OWN
from tests.integration.api.world import World

PATH = f"/v1/tenants/{OWN}/field-keys"


async def held(world: World, slug: str) -> list[TenantKey]:
    async with world.ports.catalog.connection() as db:
        return await tenant_keys.every(db, (await tenants.find(db, slug)).id)


def opened(world: World, key: TenantKey, owner: UUID | None = None) -> str:
    keyring: Keyring = world.ports.keyring
    assert key.sealed is not None
    return keyring.open(
        key.sealed, owner=owner or key.tenant_id, purpose="field", version=key.version
    )


async def shown(world: World, token: str, path: str = PATH, **request: Any) -> httpx.Response:
    async with world.client(token) as client:
        return await client.post(path, **request)


async def test_first_requests_at_once_make_one_key(world: World) -> None:
    await world.active_tenant("keyless-clinic")
    path = "/v1/tenants/keyless-clinic/field-keys"
    assert await held(world, "keyless-clinic") == []
    answers = await asyncio.gather(*(shown(world, world.tokens["app"], path) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({str(answer.json()["keys"]) for answer in answers}) == 1
    (key,) = await held(world, "keyless-clinic")
    assert (key.version, key.state) == (1, "active")


async def test_what_is_shown_is_derived_and_differs_by_tenant(world: World) -> None:
    own = await shown(world, world.tokens["own app"])
    other = await shown(world, world.tokens["other app"], f"/v1/tenants/{OTHER}/field-keys")
    assert own.headers["cache-control"] == "no-store"
    body = own.json()
    (key,) = body["keys"]
    assert (key["version"], key["state"], body["note"]) == (1, "active", None)
    assert len(base64.b64decode(key["key"])) == 32
    assert key["key"] != other.json()["keys"][0]["key"]
    (kept,) = await held(world, OWN)
    assert opened(world, kept) != key["key"]
    assert body["tenant_uuid"] == str(kept.tenant_id)
    again = await shown(world, world.tokens["own app"])
    assert again.json()["keys"] == body["keys"]
    assert again.json()["lease_id"] != body["lease_id"]


async def test_the_derivation_cannot_drift(world: World) -> None:
    """Data out there was encrypted under it: HKDF-SHA256, salt the tenant, info ``app|1``."""
    answer = await shown(world, world.tokens["own app"])
    (kept,) = await held(world, OWN)
    secret = base64.b64decode(opened(world, kept))
    extracted = hmac.digest(kept.tenant_id.bytes, secret, "sha256")
    expected = hmac.digest(extracted, b"app|1\x01", "sha256")
    assert base64.b64decode(answer.json()["keys"][0]["key"]) == expected


async def test_a_sealed_key_opens_for_its_own_tenant_only(world: World) -> None:
    await shown(world, world.tokens["own app"])
    await shown(world, world.tokens["other app"], f"/v1/tenants/{OTHER}/field-keys")
    (own,), (other,) = await held(world, OWN), await held(world, OTHER)
    with pytest.raises(KeyUnavailable):
        opened(world, own, other.tenant_id)


async def test_every_showing_is_one_audit_row_without_the_key(world: World) -> None:
    token = world.tokens["app"]
    answers = [await shown(world, token, json={"reason": "start"}) for _ in range(3)]
    leases = [answer.json()["lease_id"] for answer in answers]
    async with world.ports.catalog.connection() as db:
        rows = await db.fetch(
            """SELECT actor, subject, reason, facts, audit_events::text AS whole
               FROM audit_events
               WHERE action = 'field_keys.reveal' AND facts->>'lease_id' = ANY($1)""",
            leases,
        )
    assert len(rows) == len(set(leases)) == 3
    for row in rows:
        assert (row["actor"], row["subject"], row["reason"]) == ("app", OWN, "start")
        assert row["facts"]["versions"] == [1]
        assert answers[0].json()["keys"][0]["key"] not in row["whole"]


@asynccontextmanager
async def refusing_audit(world: World) -> AsyncIterator[None]:
    """The audit log takes no showing: a real failure inside the catalog."""
    async with world.ports.catalog.connection() as db:
        await db.execute(
            """CREATE FUNCTION refuse_keys() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"""
        )
        await db.execute(
            """CREATE TRIGGER refuse_keys BEFORE INSERT ON audit_events FOR EACH ROW
               WHEN (NEW.action = 'field_keys.reveal') EXECUTE FUNCTION refuse_keys()"""
        )
        try:
            yield
        finally:
            await db.execute("DROP FUNCTION refuse_keys CASCADE")


async def test_without_an_audit_row_there_is_no_key(world: World) -> None:
    await world.active_tenant("unaudited-clinic")
    path = "/v1/tenants/unaudited-clinic/field-keys"
    async with refusing_audit(world):
        refused = await shown(world, world.tokens["app"], path)
    assert (refused.status_code, refused.json()["code"]) == (503, "catalog_unavailable")
    assert "keys" not in refused.json()
    assert await held(world, "unaudited-clinic") == []
    assert (await shown(world, world.tokens["app"], path)).status_code == 200


async def test_a_repeat_gets_the_lease_and_not_the_key(world: World) -> None:
    headers = {"Idempotency-Key": "keys-once"}
    first = await shown(world, world.tokens["app"], headers=headers)
    again = await shown(world, world.tokens["app"], headers=headers)
    assert first.json()["keys"][0]["key"] is not None
    assert again.json()["keys"] == [{"version": 1, "key": None, "state": "active"}]
    assert again.json()["lease_id"] == first.json()["lease_id"]
    assert again.headers["cache-control"] == "no-store"
    async with world.ports.catalog.connection() as db:
        kept = await db.fetch("SELECT idempotency_keys::text AS whole FROM idempotency_keys")
    assert not any(first.json()["keys"][0]["key"] in row["whole"] for row in kept)


async def test_a_tenants_key_shows_no_other_tenants_keys(world: World) -> None:
    answer = await shown(world, world.tokens["other app"])
    assert answer.status_code == 404


async def test_an_inactive_tenant_shows_no_keys(world: World) -> None:
    await world.new_tenant("not-ready-for-keys")
    answer = await shown(world, world.tokens["app"], "/v1/tenants/not-ready-for-keys/field-keys")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")


async def test_break_glass_says_why(world: World) -> None:
    silent = await shown(world, world.tokens["breakglass"])
    spoken = await shown(world, world.tokens["breakglass"], json={"reason": "incident 42"})
    assert [error["field"] for error in silent.json()["errors"]] == ["reason"]
    assert spoken.status_code == 200


async def test_no_key_reaches_the_log(world: World) -> None:
    answer = await shown(world, world.tokens["app"])
    log = world.log.read_text()
    assert f'"path":"{PATH}"' in log
    assert answer.json()["keys"][0]["key"] not in log
