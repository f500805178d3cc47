"""S-27: who asks too often waits, by key and never by a header that anybody can write."""

from collections.abc import Iterator

import httpx
import pytest

from control_plane.config import Settings
from tests.integration.api.conftest import OWN
from tests.integration.api.world import World, running_api

# 20 requests a burst; a hundredth of it, but at least one, for reveals and failed logins.
PER_MINUTE = 20


@pytest.fixture
def strict(api_settings: Settings) -> Iterator[str]:
    """A second process with low limits on the same catalog."""
    environment = {"TENANTRY_RATE_LIMIT_PER_MINUTE": str(PER_MINUTE)}
    with running_api(api_settings, environment) as (url, _):
        yield url


async def knock(url: str, path: str, token: str, *, times: int, method: str = "GET") -> list[int]:
    """Statuses, each request from another address if X-Forwarded-For were believed."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        return [
            (await client.request(method, path, headers=_from_elsewhere(number))).status_code
            for number in range(times)
        ]


def _from_elsewhere(number: int) -> dict[str, str]:
    address = f"10.0.{number // 250}.{number % 250 + 1}"
    return {
        "X-Forwarded-For": address,
        "X-Real-IP": address,
        "Forwarded": f"for={address}",
        "X-Forwarded-Host": f"host-{number}.example",
    }


async def test_limits_follow_the_key(world: World, strict: str) -> None:
    first, second = await world.key("auditor"), await world.key("auditor")
    seen = await knock(strict, "/v1/plans", first, times=PER_MINUTE + 30)
    assert seen[:PER_MINUTE] == [200] * PER_MINUTE
    assert set(seen[PER_MINUTE + 2 :]) == {429}
    assert await knock(strict, "/v1/plans", second, times=1) == [200]

    headers = {"Authorization": f"Bearer {first}"}
    async with httpx.AsyncClient(base_url=strict, headers=headers) as client:
        refused = await client.get("/v1/plans")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60

    reveals = await knock(
        strict, f"/v1/tenants/{OWN}/dsn", world.tokens["own app"], times=3, method="POST"
    )
    assert reveals == [200, 429, 429]
    keys = f"/v1/tenants/{OWN}/field-keys"
    assert await knock(strict, keys, world.tokens["own app"], times=1, method="POST") == [429]
    assert await knock(strict, f"/v1/tenants/{OWN}", world.tokens["own app"], times=1) == [200]


async def test_guessing_is_slowed_down_and_locks_nobody_out(world: World, strict: str) -> None:
    wrong = f"tnk_{'a' * 16}_{'a' * 52}"
    seen = await knock(strict, "/v1/plans", wrong, times=1000)
    assert seen[0] == 401
    assert seen.count(429) > 980
    assert await knock(strict, "/v1/plans", await world.key("auditor"), times=1) == [200]
