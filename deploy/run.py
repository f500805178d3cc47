"""``tenantry-run COMMAND``: every process of Tenantry by its name, for images and units."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import psycopg

from control_plane.config import Settings, SettingsError, pooler_from_environment
from control_plane.domain.errors import PoolerUnavailable
from control_plane.router.pgbouncer_config import Unrenderable
from control_plane.router.pooler import LocalPooler
from deploy import commands, health
from deploy.catalog_role import Administrator
from deploy.first_start import FirstStartError, ServerToEnrol, enrol, make_token, set_up
from deploy.secret_files import make_secrets

_EVERYWHERE = "0.0.0.0"  # noqa: S104 the image's network is its own; units say --host 127.0.0.1
_REFUSED = (
    *(SettingsError, FirstStartError, PoolerUnavailable, Unrenderable),
    *(psycopg.Error, OSError),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the process that was named, or do a piece of work: 0 done, 1 failed, 2 usage."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
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


def check_health(parsed: argparse.Namespace) -> int:
    problem = _problem_of(parsed)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _problem_of(parsed: argparse.Namespace) -> str | None:
    if parsed.process == "api":
        return health.of_api(parsed.host, parsed.port)
    if parsed.process == "pgbouncer":
        settings = pooler_from_environment()
        return health.of_pgbouncer(settings.host, settings.port)
    if parsed.process == "pooler-agent":
        return health.of_pulse(pooler_from_environment().pulse_file)
    return health.of_pulse(Settings.from_environment().engine.pulse_file)


def _become(command: list[str]) -> NoReturn:
    """Signals reach the process itself, and its exit code is ours."""
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - a command of ours, without a shell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tenantry-run", description="A process of Tenantry.")
    add = parser.add_subparsers(required=True, metavar="COMMAND").add_parser
    _add_processes(add)
    _add_work(add)
    return parser


def _add_processes(add: Callable[..., argparse.ArgumentParser]) -> None:
    adding = add("api", help="the HTTP API")
    adding.add_argument("--host", default=_EVERYWHERE)
    adding.add_argument("--port", type=int, default=8000)
    adding.set_defaults(command=api)
    adding = add("worker", help="a Celery worker of one queue")
    adding.add_argument("queue", choices=("control", "transfer"))
    adding.add_argument("--processes", type=int, default=2)
    adding.set_defaults(command=worker)
    adding = add("beat", help="asks for periodic work; a second one does no harm")
    adding.add_argument("--schedule", type=Path, default=Path("/tmp/beat-schedule"))  # noqa: S108
    adding.set_defaults(command=beat)
    add("pooler-agent", help="the agent beside a PgBouncer").set_defaults(command=pooler_agent)
    add("pgbouncer", help="PgBouncer with the files of its agent").set_defaults(command=pgbouncer)


def _add_work(add: Callable[..., argparse.ArgumentParser]) -> None:
    add("migrate", help="bring the catalog to the newest migration").set_defaults(command=migrate)
    adding = add("secrets", help="make the secrets of a composition")
    adding.add_argument("directory", type=Path)
    adding.add_argument("--uid", type=int, default=os.geteuid())
    adding.add_argument("--gid", type=int, default=os.getegid())
    adding.set_defaults(command=secrets)
    adding = add("prepare", help="make the catalog's role and database, and the root key")
    adding.add_argument("--host", required=True)
    adding.add_argument("--port", type=int, default=5432)
    adding.add_argument("--admin", required=True, help="a superuser of the catalog's server")
    adding.add_argument("--admin-password-file", type=Path, required=True)
    adding.set_defaults(command=prepare)
    adding = add("first-key", help="make the first API key, in a file")
    adding.add_argument("directory", type=Path)
    adding.set_defaults(command=first_key)
    adding = add("enrol", help="enrol servers through the API")
    adding.add_argument("servers", nargs="+", type=ServerToEnrol.parse, metavar="NAME=HOST:PORT")
    adding.add_argument("--passwords", type=Path, required=True, help="a file for each name")
    adding.add_argument("--admin", required=True)
    adding.add_argument("--demo", action="store_true", help="provision demo-clinic too")
    adding.set_defaults(command=enrol_servers)
    adding = add("health", help="whether the process does its work")
    adding.add_argument("process", choices=("api", "worker", "beat", "pooler-agent", "pgbouncer"))
    adding.add_argument("--host", default="127.0.0.1")
    adding.add_argument("--port", type=int, default=8000)
    adding.set_defaults(command=check_health)


if __name__ == "__main__":
    raise SystemExit(main())
