"""What a supervisor and those who ask it say to each other: one JSON object a line."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from deploy.local.problem import StackError

Report = Callable[[str], None]


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wish; ``name`` names the process to restart or halt, or the server to provide.

    ``key`` is the id of a server to provide or withdraw, ``password`` its administrator's, and
    ``major`` its version, 0 for whichever there is.
    """

    do: Literal["status", "stop", "heal", "restart", "halt", "provide", "withdraw"]
    name: str = ""
    demo: bool = False
    key: str = ""
    password: str = ""
    major: int = 0


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an answer: progress, then either ``done`` with the facts or ``failed``.

    ``refused``: asking again will not help.
    """

    progress: str | None = None
    done: dict[str, Any] | None = None
    failed: str | None = None
    refused: bool = False


async def send(writer: asyncio.StreamWriter, line: Line) -> None:
    """Write one line; a listener that has gone is no error."""
    with contextlib.suppress(ConnectionError):
        writer.write(msgspec.json.encode(line) + b"\n")
        await writer.drain()


def outcome(connection: socket.socket, report: Report) -> dict[str, Any]:
    """Read an answer to its end.

    Raises:
        StackError: the supervisor said what failed, or ended without a word.
    """
    with connection.makefile("rb") as lines:
        for raw in lines:
            line = msgspec.json.decode(raw, type=Line)
            if line.failed is not None:
                raise StackError(line.failed)
            if line.done is not None:
                return line.done
            report(line.progress or "")
    raise StackError("the supervisor ended without an answer; see ./dev logs supervisor")
