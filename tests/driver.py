"""Driving a running stack through its API, as an operator's script would."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

OVER = ("succeeded", "failed", "cancelled")
_numbers: Iterator[int] = itertools.count(1)


def fresh_slug(word: str) -> str:
    """A slug that no other test of this run uses."""
    return f"{word[:24]}-{next(_numbers)}-{time.time_ns() % 100_000}"


@dataclass(frozen=True)
class Driver:
    """An API client with the verbs that tests speak in."""

    api: httpx.AsyncClient
    failpoints: Path

    async def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of a successful answer; a problem fails the test with its text."""
        answer = await self.api.request(method, path, **request)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def begin_create(self, slug: str, **fields: Any) -> dict[str, Any]:
        body = {"slug": slug, "name": f"Clinic {slug}"} | fields
        operation: dict[str, Any] = await self.call("POST", "/v1/tenants", json=body)
        return operation

    async def create(self, slug: str, **fields: Any) -> dict[str, Any]:
        """A tenant that is active."""
        await self.finish(await self.begin_create(slug, **fields))
        tenant: dict[str, Any] = await self.call("GET", f"/v1/tenants/{slug}")
        return tenant

    async def begin(self, slug: str, verb: str, **body: Any) -> dict[str, Any]:
        """Start a verb on a tenant; the body goes with those that take one."""
        method, path = {
            "suspend": ("POST", "suspensions"),
            "resume": ("DELETE", "suspensions"),
            "rotate": ("POST", "rotations"),
            "backup": ("POST", "backups"),
            "restore": ("POST", "restores"),
            "restore_undo": ("POST", "restores/undo"),
            "limit": ("PUT", "limits"),
        }[verb]
        request = {"json": body} if verb in ("rotate", "restore", "limit") else {}
        operation: dict[str, Any] = await self.call(method, f"/v1/tenants/{slug}/{path}", **request)
        return operation

    async def run(self, slug: str, verb: str, **body: Any) -> dict[str, Any]:
        return await self.finish(await self.begin(slug, verb, **body))

    async def back_up(self, slug: str) -> str:
        """The ``bk_`` id of a backup made just now."""
        await self.run(slug, "backup")
        page = await self.call("GET", f"/v1/tenants/{slug}/backups")
        newest = page["items"][0]
        assert newest["state"] == "complete", newest
        return str(newest["id"])

    async def verify(self, backup: str) -> dict[str, Any]:
        """Start the restore drill of a backup."""
        operation: dict[str, Any] = await self.call("POST", f"/v1/backups/{backup}/verifications")
        return operation

    async def over(self, operation: dict[str, Any], seconds: float = 90) -> dict[str, Any]:
        """The operation once it is over, however it ended."""
        deadline = time.monotonic() + seconds
        while operation["state"] not in OVER:
            assert time.monotonic() < deadline, f"still alive: {operation}"
            await asyncio.sleep(0.1)
            operation = await self.call("GET", f"/v1/operations/{operation['id']}")
        return operation

    async def finish(self, operation: dict[str, Any], seconds: float = 90) -> dict[str, Any]:
        """The operation once it has succeeded."""
        ended = await self.over(operation, seconds)
        assert ended["state"] == "succeeded", ended
        return ended

    async def dsn(self, slug: str, pool: str = "transaction") -> dict[str, Any]:
        revealed: dict[str, Any] = await self.call(
            "POST", f"/v1/tenants/{slug}/dsn", json={"pool": pool}
        )
        return revealed

    async def operations(self, **query: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.call("GET", "/v1/operations", params={**query, **cursor})
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}

    async def operation_on(self, kind: str, subject: str) -> dict[str, Any]:
        """The one operation of this kind on this subject."""
        (found,) = [
            one
            for one in await self.operations()
            if (one["kind"], one["subject"]) == (kind, subject)
        ]
        return found

    async def settle(self, seconds: float = 120) -> None:
        """Wait until no operation is alive."""
        deadline = time.monotonic() + seconds
        while True:
            alive = [
                operation
                for state in ("pending", "running", "waiting", "cancelling")
                for operation in await self.operations(state=state)
            ]
            if not alive:
                return
            assert time.monotonic() < deadline, f"still alive: {alive}"
            await asyncio.sleep(0.3)

    async def findings(self) -> list[dict[str, Any]]:
        answer = await self.call("GET", "/v1/check", timeout=60)
        found: list[dict[str, Any]] = answer["findings"]
        return found

    async def assert_clean(self) -> None:
        """Catalog and reality agree everywhere."""
        await self.settle()
        assert await self.findings() == []

    def arm(self, operation: str, step: str, moment: str, subject: str, action: str) -> Path:
        """Make the worker that reaches this boundary fail in this way, once."""
        armed = self.failpoints / f"{operation}.{step}.{moment}@{subject}"
        armed.write_text(action)
        return armed
