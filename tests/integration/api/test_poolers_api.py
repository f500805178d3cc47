"""A pooler that is gone for good is forgotten, unless somebody still needs it."""

import httpx

from control_plane.adapters import clock
from control_plane.catalog import poolers, routes
from control_plane.catalog.poolers import Registration
from tests.integration.api.world import World

LATE = "UPDATE poolers SET last_seen_at = clock_timestamp() - interval '1 hour' WHERE name = $1"


async def joined(world: World, name: str, port: int) -> None:
    """A pooler that has registered, as its agent does."""
    async with world.ports.catalog.transaction() as db:
        cell = await routes.ensure_cell(db, clock.new_id(), "cell-1")
        await poolers.register(db, Registration(clock.new_id(), name, cell.id, "127.0.0.1", port))


async def silent(world: World, name: str) -> None:
    async with world.ports.catalog.connection() as db:
        await db.execute(LATE, name)


async def names(admin: httpx.AsyncClient) -> set[str]:
    return {one["name"] for one in (await admin.get("/v1/poolers")).json()["items"]}


async def test_a_pooler_that_is_gone_is_forgotten(world: World, admin: httpx.AsyncClient) -> None:
    await joined(world, "p-gone", 6001)
    refused = await admin.delete("/v1/poolers/p-gone")
    assert refused.status_code == httpx.codes.CONFLICT
    assert "the agent of p-gone reports; stop it" in refused.json()["detail"]
    await silent(world, "p-gone")
    assert (await admin.delete("/v1/poolers/p-gone")).status_code == httpx.codes.NO_CONTENT
    assert "p-gone" not in await names(admin)
    assert (await admin.delete("/v1/poolers/p-gone")).status_code == httpx.codes.NOT_FOUND
    (event, *_) = (await admin.get("/v1/audit", params={"limit": 1})).json()["items"]
    assert (event["action"], event["subject"]) == ("pooler.remove", "p-gone")


async def test_one_that_dsns_name_stays(world: World, admin: httpx.AsyncClient) -> None:
    await silent(world, "p1")
    refused = await admin.delete("/v1/poolers/p1")
    assert refused.status_code == httpx.codes.CONFLICT
    assert "tenants name 127.0.0.1:6432; start a PgBouncer" in refused.json()["detail"]
    assert "p1" in await names(admin)
