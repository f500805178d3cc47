"""A person at a browser: a real Chromium, signed in, whose complaints fail the test."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Response

AXE = (Path(__file__).parent / "axe" / "axe-4.14.1.min.js").read_text()
# A page that is refused on purpose is told to the console of the browser too.
_REFUSED = "Failed to load resource: the server responded with a status of 4"
_SERIOUS = ("serious", "critical")


@dataclass
class Viewer:
    """One person's browser; ``complaints`` are errors and violations the browser told."""

    url: str
    context: BrowserContext
    page: Page
    email: str
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Hear every error of the page's scripts and every violation of its policy."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def open(self, path: str) -> Response:
        """Go to a page of the console."""
        answer = await self.page.goto(f"{self.url}{path}")
        assert answer is not None
        return answer

    async def text(self) -> str:
        """What the page's main part says."""
        return await self.page.inner_text("main")

    async def serious_findings(self) -> list[str]:
        """What axe finds on the page as it is, in the present colour scheme."""
        # evaluate() runs through the debugger, which the page's policy does not bind.
        await self.page.evaluate(AXE)
        found: dict[str, Any] = await self.page.evaluate(
            "axe.run({resultTypes: ['violations']})",
        )
        return [
            f"{one['id']}: {one['help']}: {json.dumps([n['html'] for n in one['nodes']])}"
            for one in found["violations"]
            if one["impact"] in _SERIOUS
        ]

    async def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        width: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return width

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_REFUSED):
            self.complaints.append(message.text)
