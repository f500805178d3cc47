"""What only the whole stack can show of the API: how its process is started."""

import httpx


async def test_the_audit_log_has_the_sockets_address(api: httpx.AsyncClient) -> None:
    """S-27, S-48: a header that anybody can write is not believed."""
    forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    made = await api.post("/v1/keys", json={"name": "forged", "roles": ["auditor"]}, headers=forged)
    assert made.status_code == 201, made.text
    events = (await api.get("/v1/audit", params={"limit": 200})).json()["items"]
    event = next(event for event in events if event["subject"] == made.json()["id"])
    assert event["address"] == "127.0.0.1"
    assert (await api.delete(f"/v1/keys/{made.json()['id']}")).status_code == 204


async def test_the_stack_is_ready_and_clean(api: httpx.AsyncClient) -> None:
    ready = (await api.get("/health/ready")).json()
    assert ready == {"status": "ok", "catalog": "ok", "redis": "ok", "listening": True}
    report = await api.get("/v1/check")
    assert report.status_code == 200, report.text
    assert report.json() == {"findings": [], "repaired": []}
    repaired = await api.post("/v1/check/repairs")
    assert repaired.json() == {"findings": [], "repaired": []}
