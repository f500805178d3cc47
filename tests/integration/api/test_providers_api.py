"""Servers made to order over HTTP, where no provider is set up."""

from tests.integration.api.conftest import OWN
from tests.integration.api.world import World

MOVE = {"server": "new", "new_server": {"name": "pg-made", "provider": "rds"}}


async def test_who_moves_tenants_may_not_have_servers_made(world: World) -> None:
    async with world.client(world.tokens["operator"]) as client:
        refused = await client.post(f"/v1/tenants/{OWN}/moves", json=MOVE)
        assert refused.status_code == 403
        assert "createServer" in refused.json()["detail"]


async def test_a_provider_that_is_not_set_up_says_by_which_variable_it_is(world: World) -> None:
    async with world.client() as client:
        for kind, variable in (
            ("local", "TENANTRY_LOCAL_SUPERVISOR"),
            ("rds", "TENANTRY_RDS_REGION"),
            ("cnpg", "TENANTRY_CNPG_NAMESPACE"),
        ):
            body = {"name": "pg-made", "provider": kind}
            refused = await client.post("/v1/provided-servers", json=body)
            assert refused.status_code == 422
            assert variable in refused.json()["detail"]
            assert refused.json()["errors"][0]["field"] == "provider"


async def test_what_no_provider_made_is_not_deleted(world: World) -> None:
    async with world.client() as client:
        refused = await client.delete("/v1/provided-servers/pg-a")
        assert refused.status_code == 404
        assert "tenantry servers remove" in refused.json()["detail"]
