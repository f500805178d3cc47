"""Applications that load their tenants with pgbench, through the poolers, while a block lasts."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug

# Every write says who acts; the sleep makes one client one busy session on any machine.
STEADY = """\
SELECT pg_sleep(0.05);
SELECT count(*) FROM public.city;
"""
WRITING = """\
BEGIN;
SELECT set_config('app.user_id', 'load', true);
INSERT INTO public.city (country_code, region, name) SELECT 'GB', 'x', md5(random()::text)
  FROM generate_series(1, 20);
COMMIT;
"""
# Its statements take a few milliseconds even on an idle server.
COUNTING = "SELECT count(*) FROM generate_series(1, 30000);"
_PROGRESS = re.compile(r"^progress: .* ([\d.]+) tps, .* (\d+) failed", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What one tenant's application does: a script, by so many clients, at most so often."""

    script: str
    clients: int = 1
    per_second: int | None = None


@dataclass(frozen=True)
class Told:
    """What pgbench said of a tenant's load, a line a second."""

    log: Path

    def seconds(self) -> list[tuple[float, int]]:
        """Transactions and failures of each second so far."""
        found = _PROGRESS.findall(self.log.read_text())
        return [(float(done), int(failed)) for done, failed in found]


async def tenants_on(driver: Driver, server: str, count: int) -> list[str]:
    slugs = [fresh_slug(f"{server}-clinic") for _ in range(count)]
    await asyncio.gather(*(driver.create(slug, server=server) for slug in slugs))
    return slugs


async def remember(catalog: Any, slug: str, statement_ms: float) -> None:
    """Hours in which the tenant's statements took that long."""
    await catalog.execute(
        """INSERT INTO usage (grain, subject_id, server_id, at, busy_ms, pooled_transactions,
                              pooled_queries, pooled_query_ms)
           SELECT 15, t.id, d.server_id,
                  date_bin('15 minutes', now(), '2000-01-01') - n * interval '15 min',
                  1000 * $2, 1000, 1000, 1000 * $2::float8
             FROM tenants t JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary',
                  generate_series(2, 20) n
            WHERE t.slug = $1""",
        slug,
        statement_ms,
    )


@asynccontextmanager
async def loaded(
    stack: Stack, driver: Driver, directory: Path, loads: Mapping[str, Load]
) -> AsyncIterator[dict[str, Told]]:
    """Each of these tenants under its load; at the end no transaction of any may have failed."""
    programs = [await _start(stack, driver, directory, slug, load) for slug, load in loads.items()]
    try:
        yield {slug: Told(directory / f"{slug}.log") for slug in loads}
        ended = [one for one in programs if one.returncode is not None]
        assert ended == [], "a load ended by itself"
    finally:
        for one in programs:
            if one.returncode is None:
                one.terminate()
        await asyncio.gather(*(one.wait() for one in programs))


async def _start(
    stack: Stack, driver: Driver, directory: Path, slug: str, load: Load
) -> asyncio.subprocess.Process:
    script = directory / f"{slug}.sql"
    script.write_text(load.script)
    program = Path(stack.facts()["servers"][1]["bin_dir"]) / "pgbench"
    rate = ["-R", str(load.per_second)] if load.per_second is not None else []
    dsn = (await driver.dsn(slug))["dsn"]
    # A client that meets an error ends, and with it the program: -T outlasts every test.
    with (directory / f"{slug}.log").open("w") as log:
        return await asyncio.create_subprocess_exec(
            *(str(program), "-n", "-M", "simple", "-c", str(load.clients), *rate, "-T", "3600"),
            *("-P", "1", "--exit-on-abort", "-f", str(script), dsn),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
