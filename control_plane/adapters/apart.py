"""Blocking work in a thread that nobody has to wait for, not even at the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


async def apart(work: Callable[[], _T]) -> _T:
    """What ``work`` returns; whoever gives up waiting leaves the thread to itself.

    Threads of ``asyncio.to_thread`` would keep the process from ending until theirs is done.
    """
    result: Future[_T] = Future()
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed on to the one who awaits it
            result.set_exception(error)

    threading.Thread(target=run, daemon=True, name="apart").start()
    return await asyncio.wrap_future(result)
