"""The console's pages over a fleet of 10,000 tenants with a year of history in the catalog.

Beside them, in the same run and process: the answer that needs nothing at all, and a page of the
API's list of tenants. A busy machine shows in the times, not in the processor time.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from control_plane.adapters import clock
from control_plane.catalog.audit import Caller
from control_plane.config import Settings
from control_plane.domain.keys import Principal
from control_plane.domain.names import show
from control_plane.domain.people import PersonRole
from control_plane.services.keys import NewKey, create_key
from control_plane.services.people import NewPerson, add_person
from control_plane.services.ports import Ports
from control_plane.services.sign_in import open_session
from tests.benchmarks import report
from tests.integration.api.world import make_catalog, open_ports_for, running_api
from tests.integration.tenant_server.postgres_fixture import running_server

TENANTS = 10_000
_ROUNDS = 40
_WARM_UP = 6
_ROLES: tuple[PersonRole, ...] = ("sales_ops", "operator", "security_admin", "auditor")
_FILL = Path(__file__).with_name("fleet.sql")
# Of every tenant and server: a year of days, a day of quarters, an hour of minutes.
_GRAINS = ((1440, 365), (15, 96), (1, 60))
_AT_ONCE = 60
_USAGE = """
INSERT INTO usage (grain, subject_id, server_id, at, seconds, busy_ms, commits, rows_read)
SELECT $1::smallint, s.subject_id, s.server_id, date_bin(make_interval(mins => $1::integer),
           clock_timestamp(), '2000-01-01 00:00+00') - n * make_interval(mins => $1::integer),
       900, 1000 * random(), 1000 * random(), 100000 * random()
  FROM (SELECT tenant_id AS subject_id, server_id FROM databases WHERE purpose = 'primary'
        UNION ALL SELECT id, id FROM servers) s, generate_series($2::integer, $3) n
"""
_NOISE = """
INSERT INTO disturbances (id, tenant_id, server_id, announced_at, level, verdict, evidence,
                          sufferers)
SELECT gen_random_uuid(), t.id, d.server_id, now(), 'noisy', t.slug || ' disturbs', '[]', '[]'
  FROM tenants t JOIN databases d ON d.tenant_id = t.id WHERE t.slug LIKE 'clinic-0100_'
"""
BESIDE = {
    "GET /health/live": "/health/live",
    "GET /v1/tenants?limit=50": "/v1/tenants?limit=50",
}
PAGES = {
    "overview": "/console/",
    "tenants, first page": "/console/tenants",
    "tenants, page in the middle": "/console/tenants?after={middle}",
    "tenants, search in the middle": "/console/tenants?q=clinic+7",
    "tenants, search without a hit": "/console/tenants?q=zzz",
    "tenants, of one server": "/console/tenants?server=pg-17",
    "tenants, suspended": "/console/tenants?state=suspended",
    "one tenant": "/console/tenants/clinic-05000",
    "one tenant, a day of usage": "/console/tenants/clinic-05000?hours=24",
    "one tenant, a year of usage": "/console/tenants/clinic-05000?hours=8760",
    "one tenant that is noisy": "/console/tenants/clinic-01001",
    "one server": "/console/servers/pg-17",
    "audit": "/console/audit",
    "audit, by an actor with few": "/console/audit?actor=bench",
    "audit, by nobody": "/console/audit?actor=nobody",
    "plan of a suspension": "/console/tenants/clinic-05000/suspend/plan",
}


async def measure() -> None:
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as directory:
        home = Path(directory)
        with running_server(15) as postgres:
            settings = make_catalog(postgres, "console_bench", home)
            began = time.perf_counter()
            cookie, token, middle = await _fill(settings)
            filled = time.perf_counter() - began
            limit = {"TENANTRY_RATE_LIMIT_PER_MINUTE": "1000000000"}
            with running_api(settings, limit) as (url, _):
                await _report(url, cookie, token, middle, filled)


async def _fill(settings: Settings) -> tuple[str, str, str]:
    """A session, a key, and the id of a tenant in the middle of the list."""
    ports = open_ports_for(settings)
    await ports.catalog.open(max_size=1)
    caller = Caller(Principal(clock.new_id(), "bench", frozenset()))
    async with ports.catalog.transaction() as db:
        await db.execute(_FILL.read_text().replace("{tenants}", str(TENANTS)), timeout=600)
        person = await add_person(db, caller, NewPerson("bench@example.com", "Bench", _ROLES))
        opened = await open_session(db, caller, person, "bench")
        key = await create_key(db, caller, NewKey("bench", _ROLES))
        await db.execute(_NOISE)
    await _fill_usage(ports)
    async with ports.catalog.connection() as db:
        rows = await db.fetch("SELECT id FROM tenants WHERE slug = 'clinic-05000'")
    await ports.catalog.close()
    return opened.plain_token, key.plain_token, show("tn", rows[0]["id"])


async def _fill_usage(ports: Ports) -> None:
    for grain, buckets in _GRAINS:
        for first in range(1, buckets + 1, _AT_ONCE):
            last = min(first + _AT_ONCE - 1, buckets)
            async with ports.catalog.connection() as db:
                await db.execute(_USAGE, grain, first, last, timeout=600)
    async with ports.catalog.connection() as db:
        await db.execute("VACUUM ANALYZE", timeout=600)
        rows = await db.fetchval("SELECT count(*) FROM usage", timeout=600)
    report.line(f"{rows:,} rows of usage")


async def _report(url: str, cookie: str, token: str, middle: str, filled: float) -> None:
    report.heading(f"Console over {TENANTS:,} tenants (filled in {filled:.0f} s), one client")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        client.cookies.set("tenantry-session", cookie)
        for name, path in {**BESIDE, **PAGES}.items():
            times, cpu = await _times(client, path.format(middle=middle))
            report.line(f"{name:30} {report.milliseconds(times)}   CPU {cpu * 1000:6.1f} ms")


async def _times(client: httpx.AsyncClient, path: str) -> tuple[list[float], float]:
    """How long the answers took, after some to warm up; and what each cost API and catalog."""
    times = []
    for _ in range(_WARM_UP):
        assert (await client.get(path)).status_code == 200, path
    spent = _processor_seconds()
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        assert (await client.get(path)).status_code == 200, path
        times.append(time.perf_counter() - began)
    return times, (_processor_seconds() - spent) / _ROUNDS


def _processor_seconds() -> float:
    """The processor time of the API and of the catalog's server, which this process started.

    It is what a page costs on a machine that has nothing else to do.
    """
    family = psutil.Process().children(recursive=True)
    times = [one.cpu_times() for one in family]
    return float(sum(one.user + one.system for one in times))


def main() -> None:
    asyncio.run(measure())
