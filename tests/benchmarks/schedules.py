"""Many small tenants whose slot comes at once, against ``pg_dump | zstd`` of each in the same run.

Every backup is a snapshot, a dump, a digest of every table, an encrypted object, read back, with a
manifest and a record. The raw tool runs as many at a time as the schedule may for one server.
"""

import asyncio
import datetime as dt
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from deploy.local.options import ServerOptions
from tests.benchmarks import report
from tests.benchmarks.backups import Operator, Raw
from tests.benchmarks.stage import stage

TENANTS = int(os.environ.get("TENANTRY_BENCH_TENANTS", "200"))
_AT_ONCE = 2
_MAKERS = 4
_NEVER = {"cron": "0 0 1 1 *", "rpo_minutes": 576_000}


async def make(operator: Operator) -> list[str]:
    """The databases of so many clinics."""
    await operator.ask("PUT", "/v1/backup-policies/standard", json=_NEVER)
    gate = asyncio.Semaphore(_MAKERS)

    async def one(number: int) -> str:
        async with gate:
            return await operator.create(f"clinic-{number:03}")

    return await asyncio.gather(*(one(number) for number in range(TENANTS)))


async def raw_dumps(raw: Raw, databases: list[str]) -> float:
    """Seconds of ``pg_dump | zstd -1`` to a file for each."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(database: str) -> None:
        async with gate:
            await asyncio.to_thread(raw.dump, database, 1)

    began = time.perf_counter()
    await asyncio.gather(*(one(database) for database in databases))
    return time.perf_counter() - began


async def scheduled(operator: Operator) -> list[dict[str, Any]]:
    """The backups of a slot that comes for all of them in the next minute."""
    slot = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1, seconds=5)
    policy = {"cron": f"{slot.minute} {slot.hour} * * *", "rpo_minutes": 2880, "jitter_minutes": 0}
    await operator.ask("PUT", "/v1/backup-policies/standard", json=policy)
    while True:
        found = [
            backup
            for number in range(TENANTS)
            for backup in await operator.backups(f"clinic-{number:03}")
        ]
        if sum(backup["state"] == "complete" for backup in found) == TENANTS:
            return found
        await asyncio.sleep(10)


def _moment(words: str) -> dt.datetime:
    return dt.datetime.fromisoformat(words)


async def run() -> None:
    directory = Path(tempfile.mkdtemp(prefix="tenantry-bench-", dir="/tmp"))
    try:
        with stage((ServerOptions("pg-a", "system"),), TENANTRY_POOL_TARGET="24") as stack:
            facts = stack.facts()
            raw = Raw(facts["servers"][0], directory)
            headers = {"Authorization": f"Bearer {Path(facts['token_file']).read_text().strip()}"}
            async with httpx.AsyncClient(
                base_url=facts["api_url"], headers=headers, timeout=120
            ) as api:
                operator = Operator(api)
                databases = await make(operator)
                theirs = await raw_dumps(raw, databases)
                found = await scheduled(operator)
        began = min(_moment(backup["created_at"]) for backup in found)
        ended = max(_moment(backup["finished_at"]) for backup in found)
        slot = _moment(found[0]["slot_at"])
        ours = (ended - began).total_seconds()
        report.heading(f"{TENANTS} small tenants by schedule, {_AT_ONCE} at a time")
        report.line(f"pg_dump | zstd -1 > file of each    {theirs:6.1f} s")
        report.line(f"tenantry, first begun to last kept  {ours:6.1f} s")
        report.line(f"the first one began {(began - slot).total_seconds():.1f} s after the slot")
        report.line(f"ratio: {theirs / ours:.2f}")
        report.line(f"failed attempts: {len(found) - TENANTS}")
    finally:
        shutil.rmtree(directory)


def main() -> None:
    asyncio.run(run())
