"""Ports: chosen free once, recorded, and never given up for another process."""

import errno
import json
import secrets
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from deploy.local.files import write_whole
from deploy.local.problem import StackError

LOOPBACK = "127.0.0.1"
LOWEST = 15_000
FALLBACK_HIGHEST = 32_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def choose_ports(record: Path, names: Iterable[str]) -> dict[str, int]:
    """The port of each name: the recorded one, or a free one that is recorded now.

    Chosen below the kernel's ephemeral range, so that no outgoing connection can sit on a
    port while its server restarts.
    """
    ports: dict[str, int] = json.loads(record.read_text()) if record.exists() else {}
    missing = [name for name in names if name not in ports]
    for name in missing:
        ports[name] = _free_port(set(ports.values()))
    if missing:
        write_whole(record, json.dumps(ports, indent=2) + "\n", 0o644)
    return ports


def require_free(ports: Mapping[str, int], names: Iterable[str]) -> None:
    """Check that nothing listens on the named ports.

    Raises:
        StackError: a port is taken; the message says by whom, as far as the kernel tells.
    """
    for name in names:
        if not is_free(ports[name]):
            raise StackError(
                f"port {ports[name]}, which {name} keeps, is taken by {_holder(ports[name])}; "
                "stop that process, or ./dev reset to start afresh on other ports"
            )


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _free_port(taken: set[int]) -> int:
    highest = _below_ephemeral()
    for _ in range(1000):
        port = LOWEST + secrets.randbelow(highest - LOWEST)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port found between {LOWEST} and {highest}; stop some servers")


def _below_ephemeral() -> int:
    try:
        lowest_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        return FALLBACK_HIGHEST
    return lowest_ephemeral if lowest_ephemeral > LOWEST + 1000 else 60_000


def _holder(port: int) -> str:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return "another process"
    for connection in connections:
        listening = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
        if listening and connection.pid:
            try:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.Error:
                return f"process {connection.pid}"
    return "another process"
