"""Ways into the console, and ways that must not be."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser

from control_plane.domain.people import PERSON_ROLES
from deploy.local.stack import Stack
from tests.integration.console.conftest import SignIn
from tests.integration.console.viewer import Viewer
from tests.integration.console.web_process import second_console

COOKIE = "tenantry-session"
PASSWORD = "a fine sentence to remember"
Adding = Callable[..., Awaitable[dict[str, Any]]]
Linking = Callable[[dict[str, Any]], Awaitable[str]]


@pytest.mark.parametrize("role", [role for role in PERSON_ROLES if role != "app"])
async def test_every_role_signs_in_with_a_link(sign_in: SignIn, role: str) -> None:
    viewer = await sign_in(role)
    assert await viewer.page.inner_text("h1") == "Overview"
    assert await viewer.page.get_by_role("link", name=viewer.email).count() == 1


async def test_a_link_works_once(
    browser: Browser, console_url: str, add_person: Adding, link_for: Linking
) -> None:
    link = await link_for(await add_person("operator"))
    for expected in ("Overview", "Tenantry"):
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{console_url}{link}")
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_load_state()
        assert await page.inner_text("h1") == expected
        await context.close()


async def test_a_password_signs_in_and_a_wrong_one_is_told_like_an_unknown_account(
    console_url: str, add_person: Adding
) -> None:
    person = await add_person("operator", password=PASSWORD)
    async with _client(console_url) as client:
        wrong = await _post(client, "/console/sign-in", email=person["email"], password="x" * 20)
        unknown = await _post(client, "/console/sign-in", email="no@where.org", password=PASSWORD)
        assert wrong.status_code == unknown.status_code == 401
        assert "the address or the password is wrong" in wrong.text
        assert "the address or the password is wrong" in unknown.text
        assert COOKIE not in client.cookies
        right = await _post(client, "/console/sign-in", email=person["email"], password=PASSWORD)
    assert right.status_code == 303
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


async def test_the_session_of_before_is_not_the_session_of_after(
    console_url: str, add_person: Adding
) -> None:
    person = await add_person("operator", password=PASSWORD)
    async with _client(console_url) as client:
        client.cookies.set(COOKIE, "prepared-by-somebody-else")
        answer = await _post(client, "/console/sign-in", email=person["email"], password=PASSWORD)
        given = answer.cookies[COOKIE]
        assert given != "prepared-by-somebody-else"
        client.cookies.clear()
        client.cookies.set(COOKIE, "prepared-by-somebody-else")
        assert (await client.get("/console/account")).status_code == 303
        client.cookies.clear()
        client.cookies.set(COOKIE, given)
        assert (await client.get("/console/account")).status_code == 200


async def test_signing_out_and_disabling_end_a_session_at_once(
    sign_in: SignIn, api: httpx.AsyncClient
) -> None:
    first, second = await sign_in("operator"), await sign_in("operator")
    # The overview is live, and would lead away by itself.
    await second.open("/console/account")
    await first.page.get_by_role("button", name="Sign out").click()
    await first.page.wait_for_url("**/console/sign-in")
    assert await _lands_on_sign_in(first)
    people = (await api.get("/v1/people", params={"limit": 200})).json()["items"]
    second_id = next(p["id"] for p in people if p["email"] == second.email)
    assert (await api.delete(f"/v1/people/{second_id}")).status_code == 204
    assert await _lands_on_sign_in(second)


async def test_a_session_ends_when_it_is_idle_or_old(sign_in: SignIn, catalog: Any) -> None:
    for column, age in (("last_seen_at", "15 minutes"), ("created_at", "12 hours")):
        viewer = await sign_in("operator")
        # The overview is live, and would lead away by itself.
        await viewer.open("/console/account")
        await catalog.execute(
            f"""UPDATE sessions SET {column} = clock_timestamp() - interval '{age}'
                FROM people p WHERE p.id = person_id AND p.email = $1""",  # noqa: S608 - constants
            viewer.email,
        )
        assert await _lands_on_sign_in(viewer)


async def test_a_form_without_the_sessions_token_or_from_elsewhere_is_refused(
    sign_in: SignIn,
) -> None:
    viewer = await sign_in("operator")
    [cookie] = [c for c in await viewer.context.cookies() if c.get("name") == COOKIE]
    async with _client(viewer.url) as client:
        client.cookies.set(COOKIE, str(cookie.get("value")))
        without = await _post(client, "/console/sign-out")
        wrong = await _post(client, "/console/sign-out", csrf_token="A" * 43)
        token = await viewer.page.get_attribute("input[name=csrf_token]", "value")
        data = {"csrf_token": str(token)}
        foreign = await client.post(
            "/console/sign-out", data=data, headers={"Origin": "https://evil.example"}
        )
        sent = {"Origin": viewer.url, "Sec-Fetch-Site": "cross-site"}
        cross = await client.post("/console/sign-out", data=data, headers=sent)
        nowhere = await client.post("/console/sign-out", data=data)
        refused = [without, wrong, foreign, cross, nowhere]
        assert [one.status_code for one in refused] == [403] * 5
        right = await client.post("/console/sign-out", data=data, headers={"Origin": viewer.url})
        assert right.status_code == 303


async def test_signing_in_leads_back_but_never_to_another_site(
    console_url: str, add_person: Adding
) -> None:
    person = await add_person("operator", password=PASSWORD)
    async with _client(console_url) as client:
        asked = await client.get("/console/account?x=1")
        assert asked.headers["Location"] == "/console/sign-in?next=/console/account%3Fx%3D1"
        for wanted, got in (
            ("/console/account?x=1", "/console/account?x=1"),
            ("https://evil.example/console/", "/console/"),
            ("//evil.example/console/", "/console/"),
            ("/console/\\evil", "/console/"),
        ):
            fields = {"email": person["email"], "password": PASSWORD, "next": wanted}
            answer = await _post(client, "/console/sign-in", **fields)
            assert answer.headers["Location"] == got


async def _lands_on_sign_in(viewer: Viewer) -> bool:
    await viewer.open("/console/account")
    return viewer.page.url.startswith(f"{viewer.url}/console/sign-in")


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30)


async def _post(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    headers = {"Origin": str(client.base_url).rstrip("/")}
    return await client.post(path, data=fields, headers=headers)


async def test_guessing_is_slowed_down_per_account_and_over_https_cookies_are_bound_to_the_host(
    stack: Stack, add_person: Adding
) -> None:
    person = await add_person("operator", password=PASSWORD)
    settings = {
        "TENANTRY_RATE_LIMIT_PER_MINUTE": "60",
        "TENANTRY_PUBLIC_URL": "https://console.example.com",
    }
    with second_console(stack, settings) as url:
        async with _client(url) as client:
            headers = {"Origin": "https://console.example.com"}
            right = {"email": person["email"], "password": PASSWORD}
            opened = await client.post("/console/sign-in", data=right, headers=headers)
            assert opened.headers["Set-Cookie"].startswith("__Host-tenantry-session=")
            assert "Secure" in opened.headers["Set-Cookie"]
            assert opened.headers["Strict-Transport-Security"] == "max-age=31536000"
            wrong = {"email": person["email"], "password": "x" * 20}
            answers = [
                await client.post("/console/sign-in", data=wrong, headers=headers) for _ in range(3)
            ]
            assert [one.status_code for one in answers] == [429, 429, 429]
            assert int(answers[-1].headers["Retry-After"]) >= 1
            other = {"email": "other@example.com", "password": "x" * 20}
            assert (
                await client.post("/console/sign-in", data=other, headers=headers)
            ).status_code == 401


async def test_every_answer_carries_the_policy(console_url: str) -> None:
    async with _client(console_url) as client:
        for path in ("/console/sign-in", "/console/static/console.js", "/console/a/b", "/"):
            headers = (await client.get(path)).headers
            assert headers["Content-Security-Policy"].startswith("default-src 'none'; "), path
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "no-referrer"


async def test_every_way_in_and_out_is_on_record(
    sign_in: SignIn, add_person: Adding, console_url: str, catalog: Any
) -> None:
    viewer = await sign_in("operator")
    await viewer.page.get_by_role("button", name="Sign out").click()
    await viewer.page.wait_for_url("**/console/sign-in")
    person = await add_person("auditor", password=PASSWORD)
    async with _client(console_url) as client:
        await _post(client, "/console/sign-in", email=person["email"], password="x" * 20)
    rows = await catalog.fetch(
        """SELECT action, outcome, actor FROM audit_events
           WHERE subject = ANY($1) ORDER BY seq""",
        [viewer.email, person["email"]],
    )
    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("person.add", "allowed"),
        ("person.link", "allowed"),
        ("session.open", "allowed"),
        ("session.close", "allowed"),
        ("person.add", "allowed"),
        ("session.open", "denied"),
    ]
    assert rows[2]["actor"] == viewer.email


async def test_neither_session_nor_link_is_readable_in_the_catalog(
    sign_in: SignIn, catalog: Any
) -> None:
    viewer = await sign_in("operator")
    [cookie] = [c for c in await viewer.context.cookies() if c.get("name") == COOKIE]
    token = str(cookie.get("value"))
    for table in ("sessions", "sign_in_links", "audit_events", "people"):
        text = await catalog.fetchval(f"SELECT string_agg(t::text, '') FROM {table} t")  # noqa: S608 - constants
        assert token not in text
