"""What sampling costs: a round over a server of a thousand databases, against the bare query.

Every database was used since the round before, so that none is skipped. Both sides read the same
server in the same run; the raw side is one ``SELECT * FROM pg_stat_database`` over a connection
that is open already. Then what the catalog answers with a year of ten thousand tenants in it.
"""

import asyncio
import functools
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from control_plane.adapters import clock
from control_plane.adapters.postgres_server import connect
from control_plane.catalog.audit import Caller
from control_plane.catalog.pool import Connection
from control_plane.domain.keys import Principal
from control_plane.domain.names import database_name, show
from control_plane.services import noise, usage
from control_plane.services.ports import Ports
from control_plane.services.usage_sampling import sample_usage
from tests.benchmarks import report
from tests.integration.api.world import furnish, make_catalog, open_ports_for
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server

_DATABASES = 1000
_ROUNDS = 7
_INTERVAL = 15.0
_AT_ONCE = 8
_FLEET = 10_000
_RAW = "SELECT * FROM pg_stat_database"
_CALLER = Caller(Principal(clock.new_id(), "benchmark", frozenset({"operator"})))
_TENANTS = """
WITH made AS (
    INSERT INTO role_sets (id) SELECT unnest($1::uuid[]) RETURNING id
), known AS (
    INSERT INTO tenants (id, slug, name, tier, cell_id, placement_reason, state, activated_at)
    SELECT m.id, 'clinic-' || row_number() OVER (), 'Clinic', 'standard', c.id, 'made', 'active',
           now()
      FROM made m, cells c RETURNING id
)
INSERT INTO databases (id, role_set_id, tenant_id, server_id, name, template_fingerprint,
                       schema_revision, purpose)
SELECT n.id, n.id, n.id, s.id, x.name, 'made', '1', 'primary'
  FROM known n JOIN unnest($1::uuid[], $2::text[]) AS x (id, name) ON x.id = n.id, servers s
"""
_PAST = """
INSERT INTO usage (grain, subject_id, server_id, at, seconds, busy_ms, commits, rows_read)
SELECT $1::smallint, d.tenant_id, d.server_id, date_bin(make_interval(mins => $1::integer),
           clock_timestamp(), '2000-01-01 00:00+00') - n * make_interval(mins => $1::integer),
       900, 1000 * random(), 1000 * random(), 100000 * random()
  FROM databases d, generate_series(1, $2) n
"""


def main() -> None:
    with (
        running_server(15) as catalog,
        running_server(18) as server,
        tempfile.TemporaryDirectory(prefix="tenantry-bench-") as home,
    ):
        settings = make_catalog(catalog, "catalog", Path(home))
        asyncio.run(_measure(open_ports_for(settings), catalog, server))


async def _measure(ports: Ports, catalog: TenantServer, server: TenantServer) -> None:
    await ports.catalog.open(max_size=4)
    await furnish(ports, server)
    names = [database_name(clock.new_id()) for _ in range(_DATABASES)]
    await _make(ports, server, names)
    report.heading(f"sampling {_DATABASES} databases of one server, all of them used")
    await _sampling(ports, catalog, server, names)
    report.heading(f"a year of {_FLEET:,} tenants in the catalog")
    await _reading(ports)
    await ports.catalog.close()


async def _make(ports: Ports, server: TenantServer, names: list[str]) -> None:
    admins = [await server.admin() for _ in range(2)]
    shares = [names[n :: len(admins)] for n in range(len(admins))]

    async def make(admin: Any, share: list[str]) -> None:
        for name in share:
            await admin.execute(f"CREATE DATABASE {name}")

    await asyncio.gather(*map(make, admins, shares))
    for admin in admins:
        await admin.close()
    ids = [clock.new_id() for _ in names]
    async with ports.catalog.transaction() as db:
        await db.execute(_TENANTS, ids, names)


async def _sampling(
    ports: Ports, catalog: TenantServer, server: TenantServer, names: list[str]
) -> None:
    raw = await server.admin()
    await raw.fetch(_RAW)
    await sample_usage(ports)
    ours: list[tuple[float, float, float, float]] = []
    bare: list[tuple[float, float]] = []
    for _ in range(_ROUNDS):
        await _use(server, names)
        async with ports.catalog.connection() as db:
            await db.execute("UPDATE usage_rounds SET taken_at = taken_at - interval '15 s'")
        own, there, took = await _cost(lambda: raw.fetch(_RAW), server)
        bare.append((own + there, took))
        before = _cpu(catalog)
        own, there, took = await _cost(lambda: sample_usage(ports), server)
        ours.append((own, there, _cpu(catalog) - before, took))
    await raw.close()
    async with ports.catalog.connection() as db:
        counted = await db.fetchval("SELECT count(*) FROM usage WHERE grain = 1")
    if counted < _DATABASES:
        raise AssertionError(f"only {counted} tenants were counted")
    _tell(ours, bare)


def _tell(ours: list[tuple[float, float, float, float]], bare: list[tuple[float, float]]) -> None:
    parts = [report.median([one[n] for one in ours]) for n in range(3)]
    whole, raw = sum(parts), report.median([one[0] for one in bare])
    report.line(f"a round takes          {report.milliseconds([one[3] for one in ours])}")
    report.line(f"the bare query takes   {report.milliseconds([one[1] for one in bare])}")
    for words, seconds in zip(("worker", "server", "catalog"), parts, strict=True):
        report.line(f"CPU of the {words:<8}    {seconds * 1000:8.1f} ms a round")
    share = whole / _INTERVAL
    report.line(f"CPU of all of them     {share:8.2%} of a core, every {_INTERVAL:g} s (bar: 2 %)")
    report.line(f"CPU of the bare query  {raw * 1000:8.1f} ms; ratio {whole / max(raw, 1e-4):.1f}")


async def _cost(
    work: Callable[[], Awaitable[object]], server: TenantServer
) -> tuple[float, float, float]:
    """CPU seconds of this process and of the server, and the time it took."""
    there, own, started = _cpu(server), time.process_time(), time.perf_counter()
    await work()
    took, own = time.perf_counter() - started, time.process_time() - own
    return own, _cpu(server) - there, took


def _cpu(server: TenantServer) -> float:
    """CPU seconds of a server's processes up to now, those that ended included."""
    (postmaster,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if f"--port={server.port}" in (process.info["cmdline"] or ())
        and process.name() == "postgres"
    )
    times = postmaster.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for child in postmaster.children():
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it is among the postmaster's children's times now
        used += spent.user + spent.system
    return float(used)


async def _use(server: TenantServer, names: list[str]) -> None:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def use(name: str) -> None:
        async with turn:
            connection = await connect(server.address(), name, "benchmark")
            await connection.fetch("SELECT count(*) FROM pg_class")
            await connection.close()

    await asyncio.gather(*map(use, names))


async def _reading(ports: Ports) -> None:
    async with ports.catalog.transaction() as db:
        more = [clock.new_id() for _ in range(_FLEET - _DATABASES)]
        await db.execute("UPDATE tenants SET slug = 'early-' || slug")
        await db.execute("TRUNCATE usage")
        await db.execute(_TENANTS, more, [database_name(one) for one in more])
    for grain, buckets in ((1440, 365), (15, 96), (1, 60)):
        for part in range(0, buckets, 60):
            async with ports.catalog.connection() as db:
                await db.execute(
                    _PAST.replace("(1, $2)", f"({part + 1}, $2)"),
                    grain,
                    min(part + 60, buckets),
                    timeout=600,
                )
    async with ports.catalog.connection() as db:
        await db.execute("VACUUM ANALYZE usage", timeout=600)
        rows = await db.fetchval("SELECT count(*) FROM usage", timeout=600)
        size = await db.fetchval(
            "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('usage')"
        )
    report.line(f"{rows:,} rows, {int(size) / 1e9:.2f} GB with their indexes")
    tenant = show("tn", more[len(more) // 2])
    for words, hours in (("a day", 24), ("a year", 365 * 24)):
        found = await _timed(ports, functools.partial(_usage_of, tenant, hours))
        report.line(f"usage of {words:<13} {report.milliseconds(found)}")
    found = await _timed(ports, noise.open_disturbances)
    report.line(f"open disturbances      {report.milliseconds(found)}")
    found = await _timed(ports, noise.noisy)
    report.line(f"noisy, all tenants     {report.milliseconds(found)}")


async def _usage_of(tenant: str, hours: int, db: Connection) -> object:
    return await usage.usage_of(db, _CALLER, tenant, hours=hours)


async def _timed(ports: Ports, ask: Callable[[Connection], Awaitable[object]]) -> list[float]:
    taken = []
    for _ in range(9):
        async with ports.catalog.connection() as db:
            started = time.perf_counter()
            await ask(db)
            taken.append(time.perf_counter() - started)
    return taken[1:]


if __name__ == "__main__":
    main()
