"""What can go wrong for a client, with the exit code and the lines a person reads."""

import re
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import click

Json = dict[str, Any]

# C0 and C1 control characters and the bidirectional overrides: text from a server must not be
# able to move the cursor, recolour the screen or reorder what a person reads.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Exit(IntEnum):
    """The exit codes that scripts rely on."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    DENIED = 6
    INTERRUPTED = 130


_BY_STATUS = {
    400: Exit.USAGE,
    401: Exit.DENIED,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    422: Exit.USAGE,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


class Problem(Exception):
    """A problem document (RFC 9457) from the API, or one made here in the same shape."""

    def __init__(self, document: Json, exit_code: Exit | None = None) -> None:
        super().__init__(document.get("detail") or document.get("title") or "it failed")
        self.document = document
        self.exit_code = exit_code or _BY_STATUS.get(document.get("status") or 0, Exit.FAILED)

    @property
    def unreachable(self) -> bool:
        return self.exit_code is Exit.UNREACHABLE

    @property
    def passing(self) -> bool:
        """Whether the same question may be answered in a moment."""
        return self.unreachable or self.document.get("status") == HTTPStatus.TOO_MANY_REQUESTS

    def lines(self) -> list[str]:
        """The error for people: one line, then one per wrong field, then where to look."""
        shown = [f"error: {one_line(str(self))}"]
        for error in self.document.get("errors") or []:
            field = one_line(str(error.get("field") or "request"))
            message = one_line(str(error.get("message", "")))
            if message and message not in shown[0]:
                shown.append(f"  {field}: {message}")
        operation = self.document.get("operation")
        if isinstance(operation, str):
            shown.append(f"  see it with: tenantry operations show {one_line(operation)}")
        return shown


def problem(exit_code: Exit, code: str, detail: str) -> Problem:
    """A problem found on this side of the wire."""
    title = code.replace("_", " ").capitalize()
    document = {"type": "about:blank", "title": title, "detail": detail, "code": code}
    return Problem(document, exit_code)


def unreachable(detail: str) -> Problem:
    return problem(Exit.UNREACHABLE, "unreachable", detail)


def usage(detail: str) -> Problem:
    return problem(Exit.USAGE, "usage", detail)


def one_line(text: str) -> str:
    """The text on one line, without a character that could steer the terminal."""
    return _UNPRINTABLE.sub("?", " ".join(text.split()))


def say(text: str) -> None:
    """A line for the person, on stderr, so that stdout stays what was asked for."""
    click.echo(text, err=True)
