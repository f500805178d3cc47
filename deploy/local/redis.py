"""Redis (or Valkey): a doorbell that keeps an append-only file all the same."""

import signal
from pathlib import Path

from deploy.local.account import Account
from deploy.local.files import secret_once, write_whole
from deploy.local.keeper import Service
from deploy.local.layout import Layout
from deploy.local.ports import LOOPBACK
from deploy.local.ready import redis
from deploy.local.spawn import Program

NAME = "redis"
TIER = 1


def password_file(layout: Layout) -> Path:
    return layout.secret("redis.password")


def service(binary: str, port: int, layout: Layout, account: Account | None) -> Service:
    """Redis with its password in a configuration file, never on its command line."""
    directory = layout.home / "redis"
    password = secret_once(password_file(layout))
    configuration = directory / "redis.conf"
    write_whole(configuration, _configuration(port, directory, password), 0o600, account)
    return Service(
        name=NAME,
        program=Program(
            argv=(binary, str(configuration)),
            home=layout.home,
            account=account,
            directory=directory,
            orphan_signal=signal.SIGTERM,
        ),
        ready=redis(port, password),
        tier=TIER,
        port=port,
    )


def _configuration(port: int, directory: Path, password: str) -> str:
    return (
        f"bind {LOOPBACK}\n"
        f"port {port}\n"
        f'dir "{directory}"\n'
        f"requirepass {password}\n"
        "appendonly yes\n"
        "maxmemory-policy noeviction\n"
        'save ""\n'
        "daemonize no\n"
    )
