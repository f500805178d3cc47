"""PgBouncer processes: each with a port, a directory and a console socket of its own."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local.account import Account, give
from deploy.local.binaries import pgbouncer_version
from deploy.local.files import secret_once
from deploy.local.keeper import Service
from deploy.local.layout import Layout
from deploy.local.ports import LOOPBACK
from deploy.local.ready import pgbouncer
from deploy.local.spawn import Program

CELL = "cell-1"
TIER = 2
SIGTERM_WAITS_FOR_CLIENTS = (1, 23, 0)  # pgbouncer.org/changelog: 1.23.0 changed SIGTERM


@dataclass(frozen=True)
class Pooler:
    """One PgBouncer process of the stack."""

    name: str
    port: int
    binary: str
    layout: Layout
    account: Account | None

    @property
    def directory(self) -> Path:
        return self.layout.pooler(self.name)

    @property
    def socket_dir(self) -> Path:
        return self.layout.pooler_socket(self.name)

    @property
    def console_password_file(self) -> Path:
        return self.layout.secret(f"pooler-{self.name}.password")

    def make(self) -> None:
        """Make the directories of the process, owned by the account that runs it."""
        for path in (self.directory, self.socket_dir):
            path.mkdir(exist_ok=True)
            give(path, self.account, 0o700)
        secret_once(self.console_password_file)

    def environment(self) -> Mapping[str, str]:
        """The settings of this pooler's agent."""
        return {
            "TENANTRY_POOLER_NAME": self.name,
            "TENANTRY_POOLER_CELL": CELL,
            "TENANTRY_POOLER_HOST": LOOPBACK,
            "TENANTRY_POOLER_PORT": str(self.port),
            "TENANTRY_POOLER_DIR": str(self.directory),
            "TENANTRY_POOLER_SOCKET_DIR": str(self.socket_dir),
            "TENANTRY_POOLER_CONSOLE_PASSWORD_FILE": str(self.console_password_file),
        }

    def service(self) -> Service:
        waits = pgbouncer_version(self.binary) >= SIGTERM_WAITS_FOR_CLIENTS
        return Service(
            name=f"pooler-{self.name}",
            program=Program(
                argv=(self.binary, str(self.directory / "pgbouncer.ini")),
                home=self.layout.home,
                account=self.account,
                directory=self.directory,
                orphan_signal=signal.SIGQUIT if waits else signal.SIGTERM,
            ),
            ready=pgbouncer(self.port),
            tier=TIER,
            port=self.port,
            stop_signal=signal.SIGQUIT if waits else signal.SIGTERM,
            before=self._forget_stale_pid,
        )

    def _forget_stale_pid(self) -> None:
        """PgBouncer refuses to start while the number in its pid file belongs to any process."""
        for stale in self.directory.glob("*.pid"):
            stale.unlink()
