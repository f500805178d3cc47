"""From POST to the first query through the pooler with the tenant's own login, against raw SQL.

The raw side is what a careful script would do on the same server: roles in one transaction,
CREATE DATABASE from the same closed template, connect rights, ownership and grants inside,
pooler files and RELOAD, then the same login and query through PgBouncer.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from control_plane.adapters import clock, scram, tenant_database, tenant_roles, tenant_schema
from control_plane.adapters.postgres_server import ServerAddress, connect
from control_plane.adapters.template_files import content_fingerprint
from control_plane.config import REPOSITORY, Secret
from control_plane.domain.names import RoleSet, database_name, template_name
from control_plane.domain.tenants import TIER_LIMITS
from deploy.local.ports import LOOPBACK
from tests.benchmarks import report
from tests.benchmarks.raw_pooler import RawPooler
from tests.benchmarks.stage import stage

_QUERY = "SELECT count(*) FROM patients.patient"
_ROUNDS = 15
_BATCH = 24
_LIMITS = TIER_LIMITS["standard"].login


async def first_query(port: int, database: str, login: str, password: str) -> None:
    """Log in and ask once; while the pooler does not know the route yet, again."""
    while True:
        try:
            connection = await asyncpg.connect(
                host=LOOPBACK,
                port=port,
                user=login,
                password=password,
                database=database,
                statement_cache_size=0,
            )
        except asyncpg.PostgresError:
            await asyncio.sleep(0.001)
            continue
        await connection.fetchval(_QUERY)
        await connection.close()
        return


class Raw:
    """The raw sequence on one server and one PgBouncer."""

    def __init__(self, server: dict[str, Any], pooler: RawPooler) -> None:
        self._address = ServerAddress(
            host=server["host"],
            port=server["port"],
            user=server["admin_user"],
            password=Secret(Path(server["admin_password_file"]).read_text().strip()),
            tls="disable",
        )
        self._pooler = pooler
        directory = REPOSITORY / "tenant_template"
        self._template = template_name(content_fingerprint(directory))
        self._system_identifier = 0

    async def prepare(self) -> None:
        admin = await connect(self._address)
        self._system_identifier = await admin.fetchval(
            "SELECT system_identifier FROM pg_control_system()"
        )
        await admin.close()

    async def create(self) -> None:
        """One tenant, from nothing to its first answer."""
        roles = RoleSet(clock.new_id())
        name, password = database_name(roles.key), secrets.token_urlsafe(24)
        verifier = scram.verifier(Secret(password))
        admin = await connect(self._address)
        await tenant_roles.ensure_role_set(admin, roles, _LIMITS)
        await tenant_roles.open_login(admin, roles.login_a, verifier, _LIMITS)
        await tenant_database.create_tenant_database(
            admin, name, self._template, roles, self._system_identifier
        )
        await admin.close()
        inside = await connect(self._address, name)
        await tenant_schema.adopt_template(inside, roles)
        await inside.close()
        target = f"host={self._address.host} port={self._address.port} dbname={name}"
        self._pooler.add(name, target, roles.login_a, verifier)
        self._pooler.reload()
        await first_query(self._pooler.port, name, roles.login_a, password)


class Ours:
    """The same by the API, as an application would do it."""

    def __init__(self, api: httpx.AsyncClient, pool_target: int) -> None:
        self._api = api
        self._pool_target = pool_target

    async def create(self) -> None:
        slug = f"bench-{secrets.token_hex(6)}"
        answer = await self._api.post("/v1/tenants", json={"slug": slug, "name": slug})
        answer.raise_for_status()
        await self._follow(answer.json()["id"])
        dsn = (await self._api.post(f"/v1/tenants/{slug}/dsn", json={})).json()
        password = dsn["dsn"].split("@", 1)[0].rsplit(":", 1)[1]
        await first_query(dsn["port"], dsn["database"], dsn["login"], password)

    async def _follow(self, operation: str) -> None:
        """Read the operation's events until it is over, as ``tenantry … --wait`` does."""
        async with self._api.stream("GET", f"/v1/operations/{operation}/events") as events:
            async for line in events.aiter_lines():
                if line.startswith("data:"):
                    state = json.loads(line.removeprefix("data:"))["state"]
                    assert state not in ("failed", "cancelled"), line
                    if state == "succeeded":
                        return
        raise AssertionError("the events ended before the operation")

    async def pool_is_full(self) -> None:
        """Wait until the server holds as many ready databases as it wants to."""
        while True:
            servers = (await self._api.get("/v1/servers")).json()["items"]
            if all(server["pooled"] >= self._pool_target for server in servers):
                return
            await asyncio.sleep(0.5)


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def at_once(work: Callable[[], Awaitable[None]], count: int, together: int) -> float:
    """Tenants per second with ``together`` in flight."""
    gate = asyncio.Semaphore(together)

    async def one() -> None:
        async with gate:
            await work()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - began)


async def latency(raw: Raw, ours: Ours, words: str) -> None:
    samples: dict[str, list[float]] = {"raw": [], "ours": []}
    for round_ in range(_ROUNDS + 2):
        await ours.pool_is_full()
        pair = {"raw": await timed(raw.create), "ours": await timed(ours.create)}
        if round_ >= 2:  # the first rounds open connections and warm caches on both sides
            for name, seconds in pair.items():
                samples[name].append(seconds)
    report.heading(f"POST to first query, one at a time, {words}")
    report.line(f"raw SQL sequence      {report.milliseconds(samples['raw'])}")
    report.line(f"tenantry              {report.milliseconds(samples['ours'])}")
    ratio = report.median(samples["ours"]) / report.median(samples["raw"])
    report.line(f"overhead ratio (median): {ratio:.2f}   (bar: at most 1.50)")


async def throughput(raw: Raw, ours: Ours, words: str) -> None:
    report.heading(f"Provisioning throughput, {words}")
    for together in (1, 4, 8):
        await ours.pool_is_full()
        theirs = await at_once(raw.create, _BATCH, together)
        mine = await at_once(ours.create, _BATCH, together)
        bar = "   (bar: at least 0.70)" if together == 4 else ""
        report.line(
            f"{together} at once: raw {theirs:5.1f}/s   tenantry {mine:5.1f}/s   "
            f"ratio {mine / theirs:.2f}{bar}"
        )


async def measure(pool_target: int, words: str) -> None:
    with stage(TENANTRY_POOL_TARGET=str(pool_target)) as stack:
        facts = stack.facts()
        token = Path(facts["token_file"]).read_text().strip()
        pooler = RawPooler()
        try:
            async with httpx.AsyncClient(
                base_url=facts["api_url"],
                headers={"Authorization": f"Bearer {token}"},
                timeout=60,
            ) as api:
                raw, ours = Raw(facts["servers"][0], pooler), Ours(api, pool_target)
                await raw.prepare()
                await latency(raw, ours, words)
                await throughput(raw, ours, words)
        finally:
            pooler.stop()


def main() -> None:
    asyncio.run(measure(0, "every database cloned on demand"))
    asyncio.run(measure(_BATCH, f"a pool of {_BATCH} databases made ahead"))
