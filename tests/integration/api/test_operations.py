"""Lists with their pages, and asking operations to stop or to go on."""

from typing import Any

import httpx
import pytest

from control_plane.catalog import leases
from control_plane.catalog.leases import Problem
from tests.integration.api.conftest import OWN
from tests.integration.api.world import World


async def walk(client: httpx.AsyncClient, path: str, **query: str) -> list[dict[str, Any]]:
    """Every item of a list, three a page."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get(path, params={**query, **cursor, "limit": 3})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"items", "next_cursor"}
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        assert len(page["items"]) == 3
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/tenants", "id"),
        ("/v1/operations", "id"),
        ("/v1/keys", "id"),
        ("/v1/plans", "kind"),
        ("/v1/servers", "name"),
        ("/v1/poolers", "name"),
    ],
)
async def test_pages_show_every_item_once(admin: httpx.AsyncClient, path: str, key: str) -> None:
    whole = (await admin.get(path, params={"limit": 200})).json()
    if whole["next_cursor"] is None:
        walked = [item[key] for item in await walk(admin, path)]
        assert walked == [item[key] for item in whole["items"]]
        assert len(set(walked)) == len(walked)


async def test_the_audit_log_pages_backwards_through_time(admin: httpx.AsyncClient) -> None:
    events = await walk(admin, "/v1/audit", tenant=OWN)
    numbers = [int(event["id"]) for event in events]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == len(numbers)
    assert events[-1]["action"] == "tenant.create"
    later = await admin.get("/v1/audit", params={"since": "2999-01-01T00:00:00Z"})
    assert later.json() == {"items": [], "next_cursor": None}


async def test_filters_of_tenants(world: World, admin: httpx.AsyncClient) -> None:
    await world.new_tenant("filtered-clinic")
    for query, expected in (
        ({"state": "provisioning"}, True),
        ({"state": "deleted"}, False),
        ({"tier": "standard", "server": "pg-a"}, True),
        ({"tier": "enterprise"}, False),
        ({"server": "pg-z"}, False),
        ({"slug_prefix": "filtered-c"}, True),
        ({"slug_prefix": "iltered"}, False),
    ):
        found = await walk(admin, "/v1/tenants", **query)
        assert ("filtered-clinic" in {tenant["slug"] for tenant in found}) == expected, query


async def test_a_tenant_is_found_by_slug_and_by_id(admin: httpx.AsyncClient) -> None:
    by_slug = (await admin.get(f"/v1/tenants/{OWN}")).json()
    by_id = (await admin.get(f"/v1/tenants/{by_slug['id']}")).json()
    assert by_slug == by_id
    assert (by_slug["state"], by_slug["server"], by_slug["operation"]) == ("active", "pg-a", None)


async def test_what_is_in_flight_is_shown(world: World, admin: httpx.AsyncClient) -> None:
    operation = await world.new_tenant("in-flight")
    tenant = (await admin.get("/v1/tenants/in-flight")).json()
    assert tenant["operation"] == {"id": operation["id"], "kind": "provision"}
    listed = await admin.get("/v1/operations", params={"tenant": "in-flight", "state": "pending"})
    assert [item["id"] for item in listed.json()["items"]] == [operation["id"]]


async def test_operations_of_an_unknown_tenant_are_a_404(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/v1/operations", params={"tenant": "nobody"})).status_code == 404
    assert (await admin.get("/v1/audit", params={"tenant": "nobody"})).status_code == 404


async def test_cancelling_asks_and_is_audited(world: World, admin: httpx.AsyncClient) -> None:
    operation = await world.new_tenant("called-off")
    path = f"/v1/operations/{operation['id']}"
    answer = await admin.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert answer.headers["location"] == path
    events = (await admin.get("/v1/audit", params={"tenant": "called-off"})).json()["items"]
    assert events[0]["action"] == "operation.cancel"
    assert events[0]["request_id"] == answer.headers["x-request-id"]


async def test_only_a_failed_operation_is_retried(world: World, admin: httpx.AsyncClient) -> None:
    operation = await world.new_tenant("second-try")
    path = f"/v1/operations/{operation['id']}"
    refused = await admin.post(f"{path}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    _, lease = await world.claim(operation["id"])
    async with world.ports.catalog.transaction() as db:
        await leases.finish(db, lease, "failed", Problem(0, "disk_full", "no space on pg-a"))
    failed = (await admin.get(path)).json()
    assert failed["error"] == {"code": "disk_full", "message": "no space on pg-a"}
    assert failed["steps"][0]["state"] == "failed"
    retried = await admin.post(f"{path}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "pending")


async def test_draining_and_back(admin: httpx.AsyncClient) -> None:
    drained = await admin.post("/v1/servers/pg-a/drain")
    assert (drained.status_code, drained.json()["state"]) == (200, "draining")
    refused = await admin.post("/v1/tenants", json={"slug": "no-drain", "name": "a"})
    assert "pg-a is draining" in refused.json()["detail"]
    back = await admin.delete("/v1/servers/pg-a/drain")
    assert (back.status_code, back.json()["state"]) == (200, "active")
    occupied = await admin.delete("/v1/servers/pg-a")
    assert (occupied.status_code, occupied.json()["code"]) == (409, "conflict")
    assert (await admin.get("/v1/servers/pg-a")).json()["state"] == "active"


async def test_the_plans_are_the_table_of_contents(admin: httpx.AsyncClient) -> None:
    plans = {plan["kind"]: plan for plan in (await admin.get("/v1/plans")).json()["items"]}
    assert plans["provision"]["steps"][-1] == "activate"
    assert plans["provision"]["cancellable_until"] == "activate"


async def test_health_metrics_and_documents_are_open(world: World) -> None:
    async with world.client("") as client:
        assert (await client.get("/health/live")).json() == {"status": "ok"}
        ready = (await client.get("/health/ready")).json()
        assert ready == {"status": "ok", "catalog": "ok", "redis": "away", "listening": True}
        metrics = (await client.get("/metrics")).text
        assert "tenantry_requests_total{" in metrics
        assert OWN not in metrics
        assert (await client.get("/schema/openapi.json")).json()["openapi"].startswith("3.1")
        page = (await client.get("/schema")).text
        assert "http://" not in page
        assert "https://" not in page
        assert (await client.get("/assets/rapidoc-min.js")).status_code == 200
