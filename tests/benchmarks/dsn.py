"""DSN requests per second through the API, against a bare handler under the same server.

Every reveal authenticates, decides, commits an audit row and opens a sealed secret; the bare
handler answers a constant. The ratio is the price of those promises.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx

from deploy.local.ports import LOOPBACK
from tests.benchmarks import report
from tests.benchmarks.raw_pooler import free_port
from tests.benchmarks.stage import stage

_SECONDS = 5.0
_CLIENTS = 8
_BARE = """
from litestar import Litestar, post
@post("/dsn")
async def dsn() -> dict[str, str]:
    return {"dsn": "postgresql://login:secret@host:6432/slug"}
app = Litestar([dsn])
"""


async def rate(url: str, path: str, headers: dict[str, str]) -> float:
    """Successful answers per second with a handful of connections."""
    answered = 0
    end = time.perf_counter() + _SECONDS

    async def client() -> None:
        nonlocal answered
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as api:
            while time.perf_counter() < end:
                answer = await api.post(path, json={})
                assert answer.is_success, answer.text
                answered += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return answered / (time.perf_counter() - began)


async def bare_rate(directory: Path) -> float:
    (directory / "bare_app.py").write_text(_BARE)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "bare_app:app",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--no-access-log",
        "--log-level",
        "error",
    ]
    server = subprocess.Popen(command, cwd=directory)
    try:
        url = f"http://{LOOPBACK}:{port}"
        await _until_up(url)
        return await rate(url, "/dsn", {})
    finally:
        server.terminate()
        server.wait()


async def _until_up(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as api:
        while True:
            try:
                await api.get("/")
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return


async def measure() -> None:
    with stage() as stack:
        facts = stack.facts()
        token = Path(facts["token_file"]).read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        url = facts["api_url"]
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as api:
            made = await api.post("/v1/tenants", json={"slug": "bench-dsn", "name": "Bench"})
            made.raise_for_status()
            while (await api.get("/v1/tenants/bench-dsn")).json()["state"] != "active":
                await asyncio.sleep(0.1)
        bare = await bare_rate(Path(facts["state_dir"]))
        ours = await rate(url, "/v1/tenants/bench-dsn/dsn", headers)
    report.heading(f"DSN reveals, {_CLIENTS} connections, client and servers on the same cores")
    report.line(f"bare Litestar handler  {bare:8.0f} requests/s")
    report.line(f"tenantry, audited      {ours:8.0f} requests/s")
    report.line(f"ratio: {ours / bare:.2f}")


def main() -> None:
    asyncio.run(measure())
