"""Named crash points at every step boundary, for tests only.

A file ``<kind>.<step>.<before|after>@<subject>`` in the failpoint directory makes the worker that
reaches that boundary raise, be killed or be frozen, once; the subject ``any`` fits every
operation. Without the directory nothing is looked at.
"""

import os
import signal
from pathlib import Path

from control_plane.domain.errors import InternalError


class InjectedFailure(InternalError):
    """An exception that a failpoint asked for."""

    code = "injected_failure"


def reach(directory: Path | None, boundary: str, subject: str) -> None:
    """Do what a waiting failpoint file says: ``exception``, ``sigkill`` or ``sigstop``.

    ``boundary`` is ``<kind>.<step>.<before|after>``.

    Raises:
        InjectedFailure: the file says ``exception``.
    """
    if directory is None:
        return
    for whose in (subject, "any"):
        armed = directory / f"{boundary}@{whose}"
        action = _disarm(armed)
        if action == "exception":
            raise InjectedFailure(f"failpoint {armed.name}")
        if action is not None:
            os.kill(os.getpid(), signal.SIGKILL if action == "sigkill" else signal.SIGSTOP)


def _disarm(armed: Path) -> str | None:
    """What the file says, to the one worker that removes it."""
    try:
        action = armed.read_text().strip()
        armed.unlink()
    except FileNotFoundError:
        return None
    return action
