"""A browser for the whole run, and people of every role to sit at it."""

import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, async_playwright, expect

from deploy.local.stack import Stack
from tests.integration.console.viewer import Viewer

SWITCHES = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_numbers = itertools.count(1)

expect.set_options(timeout=30_000)

SignIn = Callable[..., Awaitable[Viewer]]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's own Chromium, without a window."""
    found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if found is None:
        pytest.fail("there is no Chromium on PATH; ./dev test installs it where it may")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=found, args=[*SWITCHES])
        yield launched
        await launched.close()


@pytest.fixture(scope="session")
def console_url(stack: Stack) -> str:
    return str(stack.facts()["api_url"])


@pytest.fixture
async def add_person(api: httpx.AsyncClient) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Adds somebody new with these roles."""

    async def add(*roles: str, name: str = "Ada Byron", **fields: Any) -> dict[str, Any]:
        email = f"{'-'.join(roles).replace('_', '-')}-{next(_numbers)}@example.com"
        body = {"email": email, "name": name, "roles": list(roles), **fields}
        answer = await api.post("/v1/people", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    return add


@pytest.fixture
async def link_for(api: httpx.AsyncClient) -> Callable[[dict[str, Any]], Awaitable[str]]:
    """Makes a sign-in link; its path."""

    async def link(person: dict[str, Any]) -> str:
        answer = await api.post(f"/v1/people/{person['id']}/links")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["url"])

    return link


@pytest.fixture
async def sign_in(
    browser: Browser,
    console_url: str,
    add_person: Callable[..., Awaitable[dict[str, Any]]],
    link_for: Callable[[dict[str, Any]], Awaitable[str]],
) -> AsyncIterator[SignIn]:
    """Signs in somebody new with these roles; at the end nobody's browser has complained."""
    async with AsyncExitStack() as closing:
        viewers: list[Viewer] = []

        async def enter(*roles: str, width: int = 1280, dark: bool = False) -> Viewer:
            person = await add_person(*roles)
            context = await browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                timezone_id="Asia/Kolkata",
                locale="en-GB",
            )
            closing.push_async_callback(context.close)
            page = await context.new_page()
            viewer = Viewer(console_url, context, page, person["email"])
            viewer.listen()
            viewers.append(viewer)
            await viewer.open(await link_for(person))
            await page.get_by_role("button", name="Sign in").click()
            await page.wait_for_url("**/console/")
            return viewer

        yield enter
        complaints = {viewer.email: viewer.complaints for viewer in viewers if viewer.complaints}
        assert complaints == {}
