"""Signing in at an identity provider: a real one, which the browser goes to and comes back from."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from deploy.local.stack import Stack
from tests.integration.console.provider import running_provider
from tests.integration.console.web_process import second_console

USERS: list[dict[str, Any]] = [
    {"sub": "u1", "email": "grace@clinics.example", "name": "Grace", "groups": ["ops", "staff"]},
    {"sub": "u2", "email": "guest@clinics.example", "name": "Guest", "groups": ["staff"]},
    {"sub": "u3", "email": "grace@clinics.example", "name": "Another", "groups": ["ops"]},
    {
        "sub": "u4",
        "email": "eve@clinics.example",
        "name": "Eve",
        "groups": ["ops"],
        "email_verified": False,
    },
]


@pytest.fixture(scope="module")
def provided_url(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A console whose people come from the provider."""
    secret = tmp_path_factory.mktemp("oidc") / "client.secret"
    secret.write_text("between-us")
    with running_provider(USERS) as issuer:
        settings = {
            "TENANTRY_OIDC_ISSUER": issuer,
            "TENANTRY_OIDC_CLIENT_ID": "tenantry",
            "TENANTRY_OIDC_CLIENT_SECRET_FILE": str(secret),
            "TENANTRY_OIDC_ROLE_MAP": "ops=operator,audit=auditor",
        }
        with second_console(stack, settings) as url:
            yield url


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def _sign_in(page: Page, url: str, subject: str, path: str = "/console/") -> None:
    await page.goto(f"{url}{path}")
    await page.get_by_role("link", name="Sign in with your organisation").click()
    await page.get_by_role("button", name=subject, exact=True).click()
    await page.wait_for_url(f"{url}/**")
    await page.wait_for_load_state()


async def test_a_person_of_the_provider_gets_the_roles_of_their_groups(
    page: Page, provided_url: str, catalog: Any
) -> None:
    await _sign_in(page, provided_url, "u1", "/console/account")
    await page.wait_for_url(f"{provided_url}/console/account")
    assert "grace@clinics.example" in await page.inner_text("main")
    row = await catalog.fetchrow(
        "SELECT roles, subject FROM people WHERE email = 'grace@clinics.example'"
    )
    assert (row["roles"], row["subject"]) == (["operator"], "u1")
    opened = await catalog.fetchval(
        """SELECT count(*) FROM audit_events WHERE action = 'session.open'
           AND actor = 'grace@clinics.example' AND facts ->> 'by' = 'provider'"""
    )
    assert opened == 1


@pytest.mark.parametrize(
    ("subject", "words"),
    [("u2", "has no role here"), ("u3", "is there already"), ("u4", "no verified email")],
)
async def test_who_has_no_role_or_anothers_address_stays_outside(
    page: Page, provided_url: str, catalog: Any, subject: str, words: str
) -> None:
    await catalog.execute(
        """INSERT INTO people (id, email, name, roles, subject, created_by)
           VALUES (gen_random_uuid(), 'grace@clinics.example', 'Grace', '{operator}', 'u1', 'test')
           ON CONFLICT DO NOTHING"""
    )
    await _sign_in(page, provided_url, subject)
    assert words in await page.inner_text("main")
    await page.goto(f"{provided_url}/console/account")
    assert page.url.startswith(f"{provided_url}/console/sign-in")


async def test_an_answer_of_another_attempt_is_refused(provided_url: str) -> None:
    async with httpx.AsyncClient(base_url=provided_url) as client:
        gone = await client.get("/console/sign-in/provider")
        assert gone.status_code == 303
        query = httpx.URL(gone.headers["Location"]).params
        assert query["code_challenge_method"] == "S256"
        assert len(query["nonce"]) >= 32
        forged = await client.get("/console/sign-in/return?code=x&state=forged")
        assert forged.status_code == 401
        stranger = httpx.AsyncClient(base_url=provided_url)
        async with stranger:
            path = f"/console/sign-in/return?code=x&state={query['state']}"
            assert (await stranger.get(path)).status_code == 401
        wrong = await client.get(f"/console/sign-in/return?code=x&state={query['state']}")
        assert wrong.status_code == 401
        assert "did not accept" in wrong.text


async def test_without_a_provider_there_is_no_such_way(console_url: str) -> None:
    async with httpx.AsyncClient(base_url=console_url) as client:
        assert (await client.get("/console/sign-in/provider")).status_code == 404
        assert "your organisation" not in (await client.get("/console/sign-in")).text
