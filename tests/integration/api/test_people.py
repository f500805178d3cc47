"""People through the API: added once, listed, disabled for good; links are shown once."""

import httpx

from tests.integration.api.world import World

ADA = {"email": "Ada@Example.com", "name": "Ada Byron", "roles": ["operator", "operator"]}


async def test_a_person_is_added_once_and_listed_without_a_secret(
    world: World, admin: httpx.AsyncClient
) -> None:
    made = await admin.post("/v1/people", json={**ADA, "password": "a fine long sentence"})
    assert made.status_code == 201, made.text
    person = made.json()
    assert (person["email"], person["roles"]) == ("ada@example.com", ["operator"])
    assert person["has_password"] is True
    again = await admin.post("/v1/people", json={**ADA, "email": "ADA@example.com"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    listed = (await admin.get("/v1/people")).text
    assert "ada@example.com" in listed
    assert "argon2" not in listed
    async with world.ports.catalog.connection() as db:
        verifier = await db.fetchval("SELECT verifier FROM people WHERE email = 'ada@example.com'")
    assert verifier.startswith("$argon2id$")


async def test_what_cannot_be_meant_is_named(admin: httpx.AsyncClient) -> None:
    wrong: list[tuple[str, dict[str, object]]] = [
        ("email", {"email": "nobody", "name": "N", "roles": ["operator"]}),
        ("name", {"email": "n@example.com", "name": "  ", "roles": ["operator"]}),
        ("password", {**ADA, "email": "p@example.com", "password": "short"}),
        ("roles", {"email": "r@example.com", "name": "N", "roles": []}),
        ("roles[0]", {"email": "b@example.com", "name": "N", "roles": ["breakglass"]}),
    ]
    for field, body in wrong:
        answer = await admin.post("/v1/people", json=body)
        assert answer.status_code == 422, answer.text
        assert [one["field"] for one in answer.json()["errors"]] == [field]


async def test_a_link_is_shown_once_and_not_to_a_disabled_person(
    admin: httpx.AsyncClient,
) -> None:
    person = (await admin.post("/v1/people", json={**ADA, "email": "link@example.com"})).json()
    path, key = f"/v1/people/{person['id']}/links", {"Idempotency-Key": "link-once"}
    first = await admin.post(path, headers=key)
    assert first.json()["url"].startswith("/console/sign-in/link?token=")
    assert first.headers["Cache-Control"] == "no-store"
    repeat = await admin.post(path, headers=key)
    assert (repeat.status_code, repeat.json()["url"]) == (201, None)
    assert (await admin.delete(f"/v1/people/{person['id']}")).status_code == 204
    refused = await admin.post(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    async with httpx.AsyncClient(base_url=admin.base_url) as browser:
        origin = str(admin.base_url).rstrip("/")
        token = first.json()["url"].partition("=")[2]
        used = await browser.post(
            "/console/sign-in/link", data={"token": token}, headers={"Origin": origin}
        )
    assert used.status_code == 401
