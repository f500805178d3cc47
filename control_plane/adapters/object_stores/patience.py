"""Trying again: a few times, with growing pauses, and not for ever."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from control_plane.domain.errors import StoreUnavailable

T = TypeVar("T")


class Patience(msgspec.Struct, frozen=True):
    """How long to pause before each further attempt; none begins after ``seconds``."""

    pauses: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0)
    seconds: float = 100.0

    def persist(self, call: Callable[[], T], stop: threading.Event | None = None) -> T:
        """What ``call`` returns, once it does; ``stop`` ends a pause and what would follow it.

        Raises:
            StoreUnavailable: the last attempt's.
        """
        stop = stop or threading.Event()
        latest = time.monotonic() + self.seconds
        for pause in self.pauses:
            try:
                return call()
            except StoreUnavailable:
                if stop.wait(pause * _spread()) or time.monotonic() > latest:
                    raise
        return call()


def _spread() -> float:
    """0.5 to 1.5: those who failed together do not all come back together."""
    return 0.5 + secrets.randbelow(1001) / 1000
