"""What went wrong with the local stack, as one line that says what to do."""

import errno


class StackError(Exception):
    """One line for a person: what is wrong, and the remedy."""


def one_line(error: BaseException) -> str:
    """The message of any error as a single line; a group gives its first member.

    A group holds what failed at the same moment; its first member came first, and the
    others are mostly consequences.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, StackError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return disk_full(str(error.filename or "the state directory"))
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; run as its owner or set TENANTRY_HOME"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def disk_full(place: str) -> str:
    """The line for a full disk."""
    return f"the disk of {place} is full; free some space or set TENANTRY_HOME to another disk"
