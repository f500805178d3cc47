"""Processes of a stack whose supervisor is gone: found by their environment and ended."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from deploy.local.spawn import MEMBER

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05


def find(home: Path) -> list[int]:
    """Process ids that were started for the stack in ``home``, this process excepted."""
    mark = f"{MEMBER}={home}".encode()
    return [pid for pid in _processes() if pid != os.getpid() and mark in _environment(pid)]


def sweep(home: Path) -> list[int]:
    """End what is left of the stack in ``home`` and return which processes that were.

    They are asked first, with the signal that stops Postgres without waiting for its clients.
    """
    found = find(home)
    _signal(found, signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and find(home):
        time.sleep(POLL_SECONDS)
    _signal(find(home), signal.SIGKILL)
    while find(home):
        time.sleep(POLL_SECONDS)
    return found


def _processes() -> Iterable[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _environment(pid: int) -> list[bytes]:
    try:
        return (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return []


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue
