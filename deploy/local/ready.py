"""Cheap questions that tell whether a freshly started service answers."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from deploy.local.keeper import Launch
from deploy.local.logs import log_since
from deploy.local.ports import LOOPBACK

Probe = Callable[[Launch], Awaitable[bool]]
SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # postgresql.org/docs/15/protocol-message-formats
ANSWER_SECONDS = 2.0
POSTMASTER_STATUS_LINE = 7  # LOCK_FILE_LINE_PM_STATUS of src/include/utils/pidfile.h, from zero


def postgres(data: Path) -> Probe:
    """Ready when the postmaster's own status line says so, as ``pg_ctl`` waits for it.

    A standby is when it answers what is asked.
    """

    async def ready(launch: Launch) -> bool:
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        said = lines[POSTMASTER_STATUS_LINE].strip() if len(lines) > POSTMASTER_STATUS_LINE else ""
        return lines[:1] == [str(launch.pid)] and said in {"ready", "standby"}

    return ready


def pgbouncer(port: int) -> Probe:
    """Ready when it answers a Postgres SSLRequest (N or S)."""

    async def ready(_: Launch) -> bool:
        return await _ask(port, SSL_REQUEST, 1) in {b"N", b"S"}

    return ready


def redis(port: int, password: str) -> Probe:
    """Ready when an authenticated PING is answered, which is after it has loaded its data."""

    async def ready(_: Launch) -> bool:
        question = f"AUTH {password}\r\nPING\r\n".encode()
        return await _ask(port, question, 12) == b"+OK\r\n+PONG\r\n"

    return ready


def http(port: int, path: str, statuses: frozenset[int]) -> Probe:
    """Ready when ``GET path`` is answered with one of ``statuses``."""
    request = f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode()

    async def ready(_: Launch) -> bool:
        head = await _ask(port, request, 12)
        return head[:5] == b"HTTP/" and int(head[9:12] or 0) in statuses

    return ready


def log_line(pattern: str) -> Probe:
    """Ready when this run of the program has logged a line that matches ``pattern``."""
    compiled = re.compile(pattern)

    async def ready(launch: Launch) -> bool:
        return compiled.search(log_since(launch.log, launch.log_offset)) is not None

    return ready


async def _ask(port: int, question: bytes, length: int) -> bytes:
    """The first ``length`` bytes of the answer to ``question``; fewer when there are no more."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(question)
                return await reader.readexactly(length)
            finally:
                writer.close()
                await writer.wait_closed()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except (OSError, TimeoutError):
        return b""
