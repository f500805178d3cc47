"""Whether the process of a container does its work: what its health check asks.

It is asked of every container every few seconds, so it imports little.
"""

import socket
import sys
import time
from pathlib import Path

from control_plane.config import Settings, SettingsError, pooler_from_environment

ANSWER_SECONDS = 3.0
# A pulse is due every 2 s; a machine that is busy for a moment is no reason to restart.
PULSE_SECONDS = 30.0
SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # postgresql.org/docs/15/protocol-message-formats


def check(process: str, host: str, port: int) -> int:
    """0 when the process does its work, else 1 and what is wrong; ``host``, ``port``: the API's."""
    try:
        problem = _problem_of(process, host, port)
    except SettingsError as error:
        problem = str(error)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    return 0


def of_api(host: str, port: int) -> str | None:
    """What is wrong with the API; ``None`` when it is ready."""
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415

    connection = HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"the API does not answer: {error}"
    finally:
        connection.close()
    return None if status == 200 else f"the API answers {status}"  # noqa: PLR2004 HTTP's OK


def of_pulse(file: Path | None) -> str | None:
    """What is wrong with a worker, beat or an agent; ``None`` while its pulse is fresh."""
    if file is None:
        return "TENANTRY_PULSE_PATH is not set, so there is no pulse to feel"
    try:
        age = time.time() - file.stat().st_mtime
    except OSError:
        return f"there is no pulse in {file} yet"
    return None if age < PULSE_SECONDS else f"the pulse stopped {age:.0f} s ago"


def of_pgbouncer(host: str, port: int) -> str | None:
    """What is wrong with PgBouncer; ``None`` when it answers an SSLRequest (N or S)."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(SSL_REQUEST)
            answer = connection.recv(1)
    except OSError as error:
        return f"PgBouncer does not answer: {error}"
    return None if answer in {b"N", b"S"} else "something that is no PgBouncer answers"


def _problem_of(process: str, host: str, port: int) -> str | None:
    if process == "api":
        return of_api(host, port)
    if process == "pgbouncer":
        settings = pooler_from_environment()
        return of_pgbouncer(settings.host, settings.port)
    if process == "pooler-agent":
        return of_pulse(pooler_from_environment().pulse_file)
    return of_pulse(Settings.from_environment().engine.pulse_file)
