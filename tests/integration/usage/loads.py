"""Applications that load their tenants with pgbench, through the poolers, while a block lasts."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.stack import Stack
from tests.driver import Driver

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


@dataclass(frozen=True)
class Load:
    """What one tenant's application does: a script, by so many clients, at most so often."""

    script: str
    clients: int = 1
    per_second: int | None = None


@asynccontextmanager
async def loaded(
    stack: Stack, driver: Driver, directory: Path, loads: Mapping[str, Load]
) -> AsyncIterator[None]:
    """Each of these tenants under its load; at the end no transaction of any may have failed."""
    programs = [await _start(stack, driver, directory, slug, load) for slug, load in loads.items()]
    try:
        yield
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
    return await asyncio.create_subprocess_exec(
        *(str(program), "-n", "-M", "simple", "-c", str(load.clients), *rate, "-T", "3600"),
        *("--exit-on-abort", "-f", str(script), dsn),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
