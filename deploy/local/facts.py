"""``stack.json``: what runs, where it answers and which files hold its secrets."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.catalog_role import CATALOG
from deploy.local import object_store, redis
from deploy.local.application import Application, catalog_password_file
from deploy.local.files import write_whole
from deploy.local.keeper import Keeper
from deploy.local.layout import Layout
from deploy.local.pgbouncer import Pooler
from deploy.local.ports import LOOPBACK
from deploy.local.postgres import ADMIN, PostgresServer

Facts = dict[str, Any]


@dataclass(frozen=True)
class Inventory:
    """The parts of a stack that the facts describe."""

    application: Application
    catalog: PostgresServer
    servers: tuple[PostgresServer, ...]
    poolers: tuple[Pooler, ...]


def describe(
    inventory: Inventory,
    provided: Iterable[PostgresServer],
    keepers: Mapping[str, Keeper],
    phase: str,
) -> Facts:
    """The facts as JSON would hold them; process ids are null for what does not run."""
    application = inventory.application
    layout, ports = application.layout, application.ports
    return {
        "phase": phase,
        "api_url": application.api_url,
        "api_urls": application.api_urls,
        "token_file": str(layout.token),
        "state_dir": str(layout.home),
        "poolers": [_pooler(pooler, keepers) for pooler in inventory.poolers],
        "servers": [_server(server, keepers) for server in (*inventory.servers, *provided)],
        "catalog": {
            "host": LOOPBACK,
            "port": inventory.catalog.port,
            "pid": _pid(keepers, inventory.catalog.name),
            "database": CATALOG,
            "user": CATALOG,
            "password_file": str(catalog_password_file(layout)),
            "data_dir": str(inventory.catalog.data),
            "admin_user": ADMIN,
            "admin_password_file": str(inventory.catalog.password_file),
        },
        "redis": {
            "host": LOOPBACK,
            "port": ports[redis.NAME],
            "pid": _pid(keepers, redis.NAME),
            "password_file": str(redis.password_file(layout)),
        },
        "object_store": {
            "url": f"http://{LOOPBACK}:{ports[object_store.NAME]}",
            "bucket": object_store.BUCKET,
            "credentials_file": str(object_store.credentials_file(layout)),
        },
        "processes": _processes(keepers.values()),
        "environment": application.environment,
    }


def publish(layout: Layout, facts: Facts) -> None:
    """Write the facts for other programs; there is no secret in them."""
    write_whole(layout.facts, json.dumps(facts, indent=2) + "\n", 0o644)


def _pid(keepers: Mapping[str, Keeper], name: str) -> int | None:
    keeper = keepers.get(name)
    return keeper.pid if keeper else None


def _pooler(pooler: Pooler, keepers: Mapping[str, Keeper]) -> Facts:
    return {
        "name": pooler.name,
        "host": LOOPBACK,
        "port": pooler.port,
        "pid": _pid(keepers, f"pooler-{pooler.name}"),
        "console_socket_dir": str(pooler.socket_dir),
        "console_password_file": str(pooler.console_password_file),
        "directory": str(pooler.directory),
    }


def _server(server: PostgresServer, keepers: Mapping[str, Keeper]) -> Facts:
    return {
        "name": server.name,
        "key": server.key,
        "host": LOOPBACK,
        "port": server.port,
        "version": server.binaries.major,
        "pid": _pid(keepers, server.name),
        "data_dir": str(server.data),
        "bin_dir": str(server.binaries.directory),
        "admin_user": ADMIN,
        "admin_password_file": str(server.password_file),
    }


def _processes(keepers: Iterable[Keeper]) -> list[Facts]:
    return [
        {
            "name": keeper.service.name,
            "pid": keeper.pid,
            "state": keeper.state,
            "started_at": keeper.started_at.isoformat() if keeper.started_at else None,
            "log": str(keeper.log),
        }
        for keeper in keepers
    ]
