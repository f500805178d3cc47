"""How each process of Tenantry is started: the same command lines everywhere."""

import sys
from pathlib import Path


def api(host: str, port: int) -> list[str]:
    """The HTTP API.

    It says nothing of itself and believes no proxy's headers. An idle connection is kept longer
    than any client keeps it: the client ends it, never a race.
    """
    return [
        *(sys.executable, "-m", "uvicorn", "control_plane.web:create_app", "--factory"),
        *("--host", host, "--port", str(port), "--no-access-log"),
        *("--no-proxy-headers", "--no-server-header", "--timeout-graceful-shutdown", "5"),
        *("--timeout-keep-alive", "75"),
    ]


def worker(queue: str, processes: int, name: str | None = None) -> list[str]:
    """A Celery worker of one queue; two on one machine have each a ``name``."""
    return [
        *_celery("worker", "-Q", queue),
        *("-n", f"{name or queue}@%h", "--concurrency", str(processes)),
        *("--without-mingle", "--without-gossip", "--loglevel", "INFO"),
    ]


def beat(schedule: Path) -> list[str]:
    """The one who asks for periodic work; ``schedule`` is a file of its own."""
    return _celery("beat", "--schedule", str(schedule), "--pidfile=", "--loglevel", "INFO")


def agent() -> list[str]:
    """The agent beside a PgBouncer."""
    return [sys.executable, "-m", "control_plane.router.agent"]


def agent_files() -> list[str]:
    """Writes the files with which PgBouncer can start."""
    return [*agent(), "--init"]


def migrate() -> list[str]:
    """Brings the catalog to the newest migration."""
    return [sys.executable, "-m", "control_plane.catalog.migrate"]


def pgbouncer(directory: Path) -> list[str]:
    """PgBouncer with the files that its agent writes."""
    return ["pgbouncer", str(directory / "pgbouncer.ini")]


def tenantry(*arguments: str) -> list[str]:
    """The command line of this installation."""
    return [str(Path(sys.executable).with_name("tenantry")), *arguments]


def _celery(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "workers.app:app", *arguments]
