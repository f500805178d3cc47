"""``tenantry-run COMMAND``: every process of Tenantry by its name, for images and units."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy import health
from deploy.server_argument import ServerToEnrol

_EVERYWHERE = "0.0.0.0"  # noqa: S104 the image's network is its own; units say --host 127.0.0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the process that was named, or do a piece of work: 0 done, 1 failed, 2 usage."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "health":
        return health.check(parsed.process, parsed.host, parsed.port)
    # Every container is asked for its health every few seconds, which needs none of this.
    from deploy.processes import run  # noqa: PLC0415

    return run(parsed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tenantry-run", description="A process of Tenantry.")
    add = parser.add_subparsers(required=True, metavar="COMMAND", dest="command").add_parser
    _add_processes(add)
    _add_work(add)
    return parser


def _add_processes(add: Callable[..., argparse.ArgumentParser]) -> None:
    adding = add("api", help="the HTTP API")
    adding.add_argument("--host", default=_EVERYWHERE)
    adding.add_argument("--port", type=int, default=8000)
    adding = add("worker", help="a Celery worker of one queue")
    adding.add_argument("queue", choices=("control", "transfer"))
    adding.add_argument("--processes", type=int, default=2)
    adding = add("beat", help="asks for periodic work; a second one does no harm")
    adding.add_argument("--schedule", type=Path, default=Path("/tmp/beat-schedule"))  # noqa: S108
    add("pooler-agent", help="the agent beside a PgBouncer")
    add("pgbouncer", help="PgBouncer with the files of its agent")


def _add_work(add: Callable[..., argparse.ArgumentParser]) -> None:
    add("migrate", help="bring the catalog to the newest migration")
    adding = add("secrets", help="make the secrets of a composition")
    adding.add_argument("directory", type=Path)
    adding.add_argument("--uid", type=int, default=os.geteuid())
    adding.add_argument("--gid", type=int, default=os.getegid())
    adding = add("prepare", help="make the catalog's role and database, and the root key")
    adding.add_argument("--host", required=True)
    adding.add_argument("--port", type=int, default=5432)
    adding.add_argument("--admin", required=True, help="a superuser of the catalog's server")
    adding.add_argument("--admin-password-file", type=Path, required=True)
    adding = add("first-key", help="make the first API key, in a file")
    adding.add_argument("directory", type=Path)
    adding = add("enrol", help="enrol servers through the API")
    adding.add_argument("servers", nargs="+", type=ServerToEnrol.parse, metavar="NAME=HOST:PORT")
    adding.add_argument("--passwords", type=Path, required=True, help="a file for each name")
    adding.add_argument("--admin", required=True)
    adding.add_argument("--demo", action="store_true", help="provision demo-clinic too")
    adding = add("health", help="whether the process does its work")
    adding.add_argument("process", choices=("api", "worker", "beat", "pooler-agent", "pgbouncer"))
    adding.add_argument("--host", default="127.0.0.1")
    adding.add_argument("--port", type=int, default=8000)


if __name__ == "__main__":
    raise SystemExit(main())
