"""Keys that data is encrypted under, over HTTP: rotations, a new root key, a key service away."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.config import Settings
from tests.integration.api.conftest import OWN
from tests.integration.api.world import World, running_api
from tests.unit.fake_kms import ARN, FakeKms, fake_kms


async def field_keys(world: World, slug: str, url: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {world.tokens['app']}"}
    async with httpx.AsyncClient(base_url=url or world.url, headers=headers, timeout=60) as client:
        return await client.post(f"/v1/tenants/{slug}/field-keys")


async def test_after_a_rotation_an_application_is_shown_every_version(
    world: World, admin: httpx.AsyncClient
) -> None:
    await world.active_tenant("rotating-clinic")
    rotations = "/v1/tenants/rotating-clinic/key-rotations"
    (first,) = (await field_keys(world, "rotating-clinic")).json()["keys"]
    done = await admin.post(rotations, headers={"Idempotency-Key": "rotate-a-key"})
    assert (done.status_code, done.json()) == (
        200,
        {"tenant": "rotating-clinic", "version": 2, "versions": [1, 2]},
    )
    again = await admin.post(rotations, headers={"Idempotency-Key": "rotate-a-key"})
    assert again.json() == done.json()
    late = await admin.post(rotations, json={"replaces": 1})
    assert (late.status_code, late.json()["code"]) == (409, "wrong_state")
    old, new = (await field_keys(world, "rotating-clinic")).json()["keys"]
    assert old == first | {"state": "retired"}
    assert (new["version"], new["state"]) == (2, "active")
    assert new["key"] != old["key"]


async def test_an_unknown_tenant_has_no_key_to_rotate(admin: httpx.AsyncClient) -> None:
    refused = await admin.post("/v1/tenants/nobody/key-rotations")
    assert refused.status_code == 404


async def test_two_rekeys_at_once_are_refused(world: World, admin: httpx.AsyncClient) -> None:
    for state in ("pending", "waiting", "running"):  # what tests before this one have begun
        page = await admin.get("/v1/operations", params={"state": state, "limit": 200})
        for operation in page.json()["items"]:
            if operation["kind"] == "rekey":
                await world.work_off(operation["id"])
    rehearsed = await admin.post("/v1/keys/rekeys", params={"dry_run": "true"})
    assert rehearsed.status_code == 200
    assert rehearsed.json()["steps"] == ["rewrap_tenant_keys", "reseal_secrets", "verify_keys"]
    begun = await admin.post("/v1/keys/rekeys")
    assert (begun.status_code, begun.json()["kind"]) == (202, "rekey")
    assert begun.headers["location"] == f"/v1/operations/{begun.json()['id']}"
    busy = await admin.post("/v1/keys/rekeys")
    assert (busy.status_code, busy.json()["code"]) == (409, "operation_in_progress")
    assert busy.json()["operation"] == begun.json()["id"]
    await world.work_off(begun.json()["id"])
    after = await admin.post("/v1/keys/rekeys")
    assert after.status_code == 202
    await world.work_off(after.json()["id"])


@pytest.fixture
def service() -> Iterator[FakeKms]:
    with fake_kms() as running:
        yield running


@pytest.fixture
def api_with_service(
    world: World, api_settings: Settings, service: FakeKms, tmp_path: Path
) -> Iterator[str]:
    """Another API process on the same catalog, whose tenant keys hang from a key service."""
    del world
    environment = {
        "TENANTRY_KEYSTORE": f"file://{tmp_path}",
        "TENANTRY_KMS": f"aws-kms:{ARN}",
        "TENANTRY_KMS_ENDPOINT": service.url,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "TENANTRY_RATE_LIMIT_PER_MINUTE": "1000000",
    }
    with running_api(api_settings, environment) as (url, _):
        yield url


async def test_without_the_key_service_nothing_is_shown_and_connecting_goes_on(
    world: World, api_with_service: str, service: FakeKms
) -> None:
    """F-23: the DSN hangs from the local key file, the keys of fields from the service."""
    await world.active_tenant("kms-clinic")
    service.refusal = (400, "DisabledException")
    refused = await field_keys(world, "kms-clinic", api_with_service)
    assert (refused.status_code, refused.json()["code"]) == (503, "key_unavailable")
    assert refused.headers["retry-after"]
    headers = {"Authorization": f"Bearer {world.tokens['app']}"}
    async with httpx.AsyncClient(base_url=api_with_service, headers=headers) as client:
        assert (await client.post("/v1/tenants/kms-clinic/dsn")).status_code == 200
    service.refusal = None
    shown = await field_keys(world, "kms-clinic", api_with_service)
    assert shown.status_code == 200
    again = await field_keys(world, "kms-clinic", api_with_service)
    assert again.json()["keys"] == shown.json()["keys"]


async def test_the_keys_of_one_tenant_are_not_rotated_by_another(world: World) -> None:
    async with world.client(world.tokens["own app"]) as client:
        assert (await client.post(f"/v1/tenants/{OWN}/key-rotations")).status_code == 403
