"""Files written whole or not at all, and secrets made once."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from deploy.local.account import Account


def write_whole(path: Path, text: str, mode: int, account: Account | None = None) -> None:
    """Replace ``path`` in one rename, so that a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), mode)
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def secret_once(path: Path, make: Callable[[], str] | None = None) -> str:
    """The secret in ``path``, made (mode 0600, 256 bits unless ``make`` says else) if missing."""
    if not path.exists():
        write_whole(path, (make or _random_secret)() + "\n", 0o600)
    return path.read_text().strip()


def _random_secret() -> str:
    return secrets.token_urlsafe(32)
