"""A small OpenID Connect provider as its own process, and an API that knows it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.integration.console.processes import free_port, wait_until_up

_START_SECONDS = 30.0


@contextmanager
def running_provider(users: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The provider with these users, each a set of claims; its issuer."""
    port = free_port()
    known = [word for user in users for word in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--require-nonce", "true", *known],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    issuer = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(process, f"{issuer}/.well-known/openid-configuration", _START_SECONDS)
        yield issuer
    finally:
        process.terminate()
        process.wait(20)
