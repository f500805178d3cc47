"""What the commands of ``tenantry-run`` do, but health checks: see ``deploy.run``."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

import psycopg

from control_plane.config import Settings, SettingsError, pooler_from_environment
from control_plane.domain.errors import PoolerUnavailable
from control_plane.router.pgbouncer_config import Unrenderable
from control_plane.router.pooler import LocalPooler
from deploy import commands
from deploy.catalog_role import Administrator
from deploy.first_start import FirstStartError, enrol, make_token, set_up
from deploy.secret_files import make_secrets

_REFUSED = (
    *(SettingsError, FirstStartError, PoolerUnavailable, Unrenderable),
    *(psycopg.Error, OSError),
)


def run(parsed: argparse.Namespace) -> int:
    """Become the process that was named, or do a piece of work: 0 done, 1 failed."""
    try:
        return _COMMANDS[parsed.command](parsed)
    except _REFUSED as error:
        print(f"tenantry-run: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1


def api(parsed: argparse.Namespace) -> NoReturn:
    _become(commands.api(parsed.host, parsed.port))


def worker(parsed: argparse.Namespace) -> NoReturn:
    _become(commands.worker(parsed.queue, parsed.processes))


def beat(parsed: argparse.Namespace) -> NoReturn:
    _become(commands.beat(parsed.schedule))


def pooler_agent(_: argparse.Namespace) -> NoReturn:
    _become(commands.agent())


def migrate(_: argparse.Namespace) -> NoReturn:
    _become(commands.migrate())


def pgbouncer(_: argparse.Namespace) -> NoReturn:
    """Write what is missing of its files; a pid file of an earlier life would stop it."""
    settings = pooler_from_environment()
    for directory in (settings.directory, settings.socket_dir):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    LocalPooler(settings).prepare()
    for stale in settings.directory.glob("*.pid"):
        stale.unlink()
    _become(commands.pgbouncer(settings.directory))


def secrets(parsed: argparse.Namespace) -> int:
    for path in make_secrets(parsed.directory, (parsed.uid, parsed.gid)):
        print(f"made {path}")
    return 0


def prepare(parsed: argparse.Namespace) -> int:
    password = parsed.admin_password_file.read_text().strip()
    administrator = Administrator(parsed.host, parsed.port, parsed.admin, password)
    set_up(Settings.from_environment(), administrator)
    print("the catalog's role, its database and the root key are there")
    return 0


def first_key(parsed: argparse.Namespace) -> int:
    print(make_token(parsed.directory))
    return 0


def enrol_servers(parsed: argparse.Namespace) -> int:
    done = enrol(parsed.servers, parsed.passwords, parsed.admin, demo=parsed.demo)
    print("\n".join(done))
    return 0


def _become(command: list[str]) -> NoReturn:
    """Signals reach the process itself, and its exit code is ours."""
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - a command of ours, without a shell


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "api": api,
    "worker": worker,
    "beat": beat,
    "pooler-agent": pooler_agent,
    "pgbouncer": pgbouncer,
    "migrate": migrate,
    "secrets": secrets,
    "prepare": prepare,
    "first-key": first_key,
    "enrol": enrol_servers,
}
