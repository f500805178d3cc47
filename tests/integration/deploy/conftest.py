"""The servers of a local stack, and the composition run on them, once for this folder."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.options import StackOptions
from deploy.local.stack import Stack
from tests.conftest import FAST_POSTGRES
from tests.integration.deploy.engine import Engine
from tests.unit.deploy.composition import COMPOSE, load


@pytest.fixture(scope="package")
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tenantry-compose-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place)


@contextmanager
def bare_servers(home: Path) -> Iterator[dict[str, Any]]:
    """Postgres, Redis and the object store, without any process of ours."""
    stack = Stack(
        StackOptions(home=home, attached=True, application=False, postgres_settings=FAST_POSTGRES)
    )
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture(scope="package")
def servers(base: Path) -> Iterator[dict[str, Any]]:
    with bare_servers(base / "stack") as facts:
        yield facts


@pytest.fixture(scope="package")
def engine(base: Path, servers: dict[str, Any]) -> Iterator[Engine]:
    """The composition, up: its servers are those of the stack, and so are their secrets."""
    facts = {server["name"]: server for server in servers["servers"]}
    store = servers["object_store"]
    keys = json.loads(Path(store["credentials_file"]).read_text())
    running = Engine(
        load(COMPOSE.read_text())["services"],
        base,
        {
            **{name: server["port"] for name, server in facts.items()},
            "catalog": servers["catalog"]["port"],
            "redis": servers["redis"]["port"],
            "store": int(store["url"].rpartition(":")[2]),
        },
        {
            "TENANTRY_SERVER_NETWORKS": "127.0.0.1/32",
            "TENANTRY_POSTGRES_PROGRAMS": servers["environment"]["TENANTRY_POSTGRES_PROGRAMS"],
        },
    )
    known = {
        "catalog-admin": Path(servers["catalog"]["admin_password_file"]).read_text(),
        "redis": Path(servers["redis"]["password_file"]).read_text(),
        "store-access": keys["access_key"],
        "store-secret": keys["secret_key"],
        **{name: Path(s["admin_password_file"]).read_text() for name, s in facts.items()},
    }
    for name, secret in known.items():
        path = running.volume("secrets-own") / name
        path.write_text(secret)
        path.chmod(0o600)
    try:
        running.up()
        yield running
    finally:
        running.down()
