"""Where everything of one stack lives below its state directory."""

import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from deploy.local.account import Account, can_enter, give
from deploy.local.problem import StackError, disk_full

PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+=@-]*", re.ASCII)
MARKER = ".tenantry-home"
LONGEST_SOCKET_DIRECTORY = 70  # sun_path holds 107 bytes, and .s.PGSQL.65535.lock is 19 of them


@dataclass(frozen=True)
class Layout:
    """Paths of one stack; nothing here touches the disk but ``prepare``."""

    home: Path

    @property
    def facts(self) -> Path:
        return self.home / "stack.json"

    @property
    def ports(self) -> Path:
        return self.home / "ports.json"

    @property
    def provided(self) -> Path:
        return self.home / "provided.json"

    @property
    def lock(self) -> Path:
        return self.home / "supervisor.lock"

    @property
    def token(self) -> Path:
        return self.home / "admin.token"

    @property
    def keyring(self) -> Path:
        return self.home / "keys" / "root.keys"

    @property
    def logs(self) -> Path:
        return self.home / "log"

    @property
    def objects(self) -> Path:
        return self.home / "objects"

    @property
    def run(self) -> Path:
        """Sockets; a long home would not fit a socket's name, so it gets a short stand-in."""
        inside = self.home / "run"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_DIRECTORY - len("/pooler-p1"):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path("/tmp") / f"tenantry-{os.geteuid()}-{digest}"  # noqa: S108 owner is checked

    @property
    def control(self) -> Path:
        return self.run / "control.sock"

    def secret(self, name: str) -> Path:
        return self.home / "secrets" / name

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def postgres_data(self, name: str) -> Path:
        return self.home / "postgres" / name

    def pooler(self, name: str) -> Path:
        return self.home / "poolers" / name

    def pooler_socket(self, name: str) -> Path:
        return self.run / f"pooler-{name}"

    def prepare(self, account: Account | None, minimum_free_bytes: int) -> None:
        """Make the directories, each with the owner and mode its reader needs.

        Raises:
            StackError: the place is somebody else's, out of reach, or its disk is nearly full.
        """
        self.claim(account)
        free = shutil.disk_usage(self.home).free
        if free < minimum_free_bytes:
            raise StackError(
                disk_full(str(self.home)) + f" ({free >> 20} MiB free, {minimum_free_bytes >> 20} "
                "MiB needed)"
            )
        self._prepare_run()
        for private in ("secrets", "keys", "log", "beat"):
            _directory(self.home / private, None, 0o700)
        for passage in ("postgres", "poolers", "bin"):
            _directory(self.home / passage, None, 0o755)
        for served in (self.home / "redis", self.objects, self.run / "postgres"):
            _directory(served, account, 0o700)

    def claim(self, account: Account | None) -> None:
        """Make the state directory and mark it as Tenantry's.

        Raises:
            StackError: it holds files that are not Tenantry's, ``account`` cannot reach it, or
                its name cannot be written into a configuration file.
        """
        if PLAIN_PATH.fullmatch(str(self.home)) is None:
            raise StackError(
                f"TENANTRY_HOME={str(self.home)!r} holds characters that PgBouncer's files cannot; "
                "use letters, digits and _ . / + = @ -"
            )
        if account is not None:
            self._require_reachable(account)
        marker = self.home / MARKER
        if not marker.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            if any(self.home.iterdir()):
                raise StackError(
                    f"{self.home} holds files that are not Tenantry's; "
                    "set TENANTRY_HOME to an empty or new directory"
                )
            marker.touch()
        self.home.chmod(0o755)

    def _require_reachable(self, account: Account) -> None:
        for parent in self.home.parents:
            if parent.exists() and not can_enter(parent, account):
                raise StackError(
                    f"the user {account.name} cannot enter {parent}; "
                    "set TENANTRY_HOME to a place such as /var/lib/tenantry"
                )

    def _prepare_run(self) -> None:
        self.run.mkdir(mode=0o755, exist_ok=True)
        found = self.run.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StackError(f"{self.run} belongs to somebody else; remove it")
        self.run.chmod(0o755)


def _directory(path: Path, account: Account | None, mode: int) -> None:
    path.mkdir(exist_ok=True)
    give(path, account, mode)


def forget(layout: Layout) -> None:
    """Delete the state directory and its sockets.

    Raises:
        StackError: the directory does not carry Tenantry's marker.
    """
    if not layout.home.exists():
        return
    if not (layout.home / MARKER).exists():
        raise StackError(
            f"{layout.home} does not carry {MARKER}, so it is not a state directory of Tenantry; "
            "nothing was deleted"
        )
    if layout.run.exists():
        shutil.rmtree(layout.run)
    shutil.rmtree(layout.home)
