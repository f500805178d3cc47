"""The unprivileged account that runs Postgres, PgBouncer, Redis and the object store."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from deploy.local.problem import StackError


@dataclass(frozen=True)
class Account:
    """A system user that root steps down to."""

    name: str
    uid: int
    gid: int


def service_account() -> Account | None:
    """The account to step down to: ``postgres`` when root, none for anybody else.

    Postgres and PgBouncer refuse to run as root.

    Raises:
        StackError: root without a user ``postgres``.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        raise StackError(
            "there is no user 'postgres' to run the database servers as; "
            "apt-get install postgresql-common, or run as an ordinary user"
        ) from None
    return Account("postgres", entry.pw_uid, entry.pw_gid)


def give(path: Path, account: Account | None, mode: int) -> None:
    """Set the mode of ``path`` and, when root, its owner."""
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def can_enter(directory: Path, account: Account) -> bool:
    """Whether ``account`` may pass through ``directory`` (its x bit)."""
    stat = directory.stat()
    if stat.st_uid == account.uid:
        return bool(stat.st_mode & 0o100)
    if stat.st_gid == account.gid:
        return bool(stat.st_mode & 0o010)
    return bool(stat.st_mode & 0o001)
