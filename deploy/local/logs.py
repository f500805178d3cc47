"""Log files of the processes: opened to append, read from a point, kept from growing for ever."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

LARGEST_BYTES = 16 << 20
LOOK_SECONDS = 60.0


def open_log(path: Path) -> BinaryIO:
    """Open a log, private to its owner, to write at its end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "ab")


def log_since(log: Path, offset: int) -> str:
    """The text written to ``log`` after the first ``offset`` bytes."""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def trim(log: Path, largest_bytes: int) -> None:
    """Keep an overgrown log as ``.log.1`` and go on with an empty one.

    Its writers append, so they need not be told.
    """
    if log.stat().st_size > largest_bytes:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        log.with_suffix(".log.1").chmod(0o600)
        os.truncate(log, 0)


def trim_all(directory: Path) -> None:
    """Trim every log of a directory; one that cannot be trimmed now waits for the next time."""
    for log in directory.glob("*.log"):
        with contextlib.suppress(OSError):
            trim(log, LARGEST_BYTES)


async def keep_trimmed(directory: Path) -> None:
    """Look after the logs of a directory until cancelled."""
    while True:
        trim_all(directory)
        await asyncio.sleep(LOOK_SECONDS)
