"""A template class of the tests' own, to which they add revisions, and its tenants."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from control_plane.adapters.template_files import head_revision
from control_plane.domain.names import parse
from deploy.local.stack import Stack
from tests.driver import OVER, Driver, fresh_slug

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_numbers: Iterator[int] = itertools.count(1)
_REVISION = '''"""{title}"""

from alembic import op

revision = "{revision}"
down_revision = "{down}"
{extra}

def upgrade() -> None:
{body}
'''


@dataclass(frozen=True)
class Laboratory:
    """The class ``lab`` of the session's stack."""

    stack: Stack
    driver: Driver

    @property
    def directory(self) -> Path:
        return Path(self.stack.options.environment["TENANTRY_TEMPLATES"].removeprefix("lab="))

    def add(self, *statements: str, outside: bool = False, extra: str = "") -> str:
        """A revision after the present head; its id."""
        revision = f"t{next(_numbers):04d}"
        self.write(revision, head_revision(self.directory), statements, outside, extra)
        return revision

    def write(
        self,
        revision: str,
        down: str,
        statements: Sequence[str],
        outside: bool = False,  # noqa: FBT001, FBT002 - as add() has it
        extra: str = "",
    ) -> None:
        """The file of one revision, in place of what it was."""
        lines = [f"op.execute({statement!r})" for statement in statements]
        if outside:
            lines = ["with op.get_context().autocommit_block():", *(f"    {one}" for one in lines)]
        text = _REVISION.format(
            title=f"Test {revision}",
            revision=revision,
            down=down,
            extra=extra,
            body="\n".join(f"    {line}" for line in lines),
        )
        (self.directory / "versions" / f"{revision}.py").write_text(text)

    def remove(self, revision: str) -> None:
        (self.directory / "versions" / f"{revision}.py").unlink()

    def add_column(self, **options: Any) -> str:
        return self.add(f"ALTER TABLE lab.sample ADD COLUMN note_{next(_numbers)} text", **options)

    async def tenants(self, count: int, group: str) -> list[str]:
        """Active tenants of this class, half on each server, labelled with ``group``."""
        slugs = [fresh_slug(f"lab-{group}") for _ in range(count)]
        gate = asyncio.Semaphore(6)

        async def make(number: int, slug: str) -> None:
            async with gate:
                await self.driver.create(
                    slug,
                    template="lab",
                    server=("pg-a", "pg-b")[number % 2],
                    labels={"group": group},
                )

        await asyncio.gather(*(make(number, slug) for number, slug in enumerate(slugs)))
        return slugs

    async def begin(self, group: str, **options: Any) -> dict[str, Any]:
        """A rollout over the tenants of this group; its operation."""
        body = {"template": "lab", "select": {"labels": {"group": group}}, **options}
        operation: dict[str, Any] = await self.driver.call("POST", "/v1/rollouts", json=body)
        return operation

    async def show(self, operation: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = await self.driver.call(
            "GET", f"/v1/rollouts/{operation['subject']}"
        )
        return found

    async def targets(self, operation: dict[str, Any], **query: str) -> dict[str, dict[str, Any]]:
        """Every tenant of a rollout, by slug."""
        found: dict[str, dict[str, Any]] = {}
        cursor: dict[str, str] = {}
        while True:
            page = await self.driver.call(
                "GET", f"/v1/rollouts/{operation['subject']}/targets", params={**query, **cursor}
            )
            found |= {target["tenant"]: target for target in page["items"]}
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def until(
        self, operation: dict[str, Any], *states: str, seconds: float = 90
    ) -> dict[str, Any]:
        """The rollout once it is in one of these states."""
        async with asyncio.timeout(seconds):
            while (found := await self.show(operation))["state"] not in states:
                await asyncio.sleep(0.1)
        return found

    async def finish(self, operation: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
        """The rollout, which succeeds."""
        ended = await self.driver.over(operation, seconds)
        assert ended["state"] == OVER[0], ended
        return await self.show(operation)

    async def leave(self) -> None:
        """End whatever rollout a test that failed has left."""
        found = await self.driver.call("GET", "/v1/rollouts")
        for rollout in found["items"]:
            if rollout["state"] in ("running", "paused", "halted"):
                await self.driver.call("POST", f"/v1/rollouts/{rollout['id']}/abort")
                await self.until({"subject": rollout["id"]}, "aborted")

    async def revisions(self, slugs: Sequence[str]) -> set[str]:
        """What the catalog says and what the databases say, which is the same."""
        found = set()
        for slug in slugs:
            tenant = await self.driver.call("GET", f"/v1/tenants/{slug}")
            async with self.inside(slug) as connection:
                actual = await connection.fetchval("SELECT version_num FROM public.alembic_version")
            assert actual == tenant["schema_revision"], slug
            found.add(actual)
        return found

    @asynccontextmanager
    async def inside(self, slug: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """The administrator inside a tenant's database."""
        tenant = await self.driver.call("GET", f"/v1/tenants/{slug}")
        key = parse("tn", tenant["id"])
        assert key is not None
        (server,) = (
            server for server in self.stack.facts()["servers"] if server["name"] == tenant["server"]
        )
        connection = await asyncpg.connect(
            host=server["host"],
            port=server["port"],
            user=server["admin_user"],
            password=Path(server["admin_password_file"]).read_text().strip(),
            database=f"t_{tenant['id'].removeprefix('tn_')}",
        )
        try:
            yield connection
        finally:
            await connection.close()
