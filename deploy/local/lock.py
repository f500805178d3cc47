"""One supervisor per state directory: a file lock that ends with the process that holds it."""

import fcntl
import os
import time
from pathlib import Path
from typing import TextIO

POLL_SECONDS = 0.05


def take(path: Path) -> TextIO | None:
    """The lock, with this process's id written into it, or None when somebody holds it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def holder(path: Path) -> int | None:
    """The process that holds the lock, or None when nobody does."""
    if not path.exists():
        return None
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0)
    return None


def wait_free(path: Path, seconds: float) -> bool:
    """Whether the lock was let go within ``seconds``."""
    deadline = time.monotonic() + seconds
    while holder(path) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
