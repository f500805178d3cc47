"""A second process of API and console on the stack's catalog, with other settings."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from control_plane.config import REPOSITORY
from deploy.local.stack import Stack
from tests.integration.console.processes import free_port, wait_until_up

_START_SECONDS = 60.0


@contextmanager
def second_console(stack: Stack, environment: Mapping[str, str]) -> Iterator[str]:
    """Its URL, which is also the public one it knows of itself."""
    port = free_port()
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
        wait_until_up(process, f"{url}/health/ready", _START_SECONDS)
        yield url
    finally:
        process.terminate()
        process.wait(20)
