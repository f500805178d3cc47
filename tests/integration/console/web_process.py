"""A second process of API and console on the stack's catalog, with other settings."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from control_plane.config import REPOSITORY
from deploy.local.stack import Stack

_START_SECONDS = 60.0


@contextmanager
def second_console(stack: Stack, environment: Mapping[str, str]) -> Iterator[str]:
    """Its URL, which is also the public one it knows of itself."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "control_plane.web:create_app", "--factory"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-access-log"),
            *("--no-proxy-headers", "--timeout-graceful-shutdown", "2"),
        ],
        env={
            **kept,
            **stack.facts()["environment"],
            "TENANTRY_PUBLIC_URL": url,
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    try:
        _wait_until_up(process, f"{url}/health/ready")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the second console did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
