"""A PgBouncer without a control plane: files written by hand, RELOAD by signal."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from control_plane.adapters import scram
from control_plane.config import Secret
from deploy.local import binaries
from deploy.local.account import give, service_account
from deploy.local.ports import LOOPBACK

_ADMIN = "bench_admin"


class RawPooler:
    """One PgBouncer process on a free loopback port; routes are added and reloaded by hand."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tenantry-raw-", dir="/tmp"))
        self.port = free_port()
        self.admin_password = Secret("bench-only")
        self._databases: dict[str, str] = {}
        self._users: dict[str, str] = {_ADMIN: scram.verifier(self.admin_password)}
        self._account = service_account()
        self.write()
        (self.directory / "pgbouncer.ini").write_text(self._main())
        give(self.directory, self._account, 0o755)
        self._process = self._start()

    def add(self, alias: str, target: str, login: str, verifier: str) -> None:
        self._databases[alias] = target
        self._users[login] = verifier

    def reload(self) -> None:
        """Write both files and send SIGHUP."""
        self.write()
        os.kill(self._process.pid, signal.SIGHUP)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        shutil.rmtree(self.directory)

    @property
    def console(self) -> str:
        return (
            f"host={LOOPBACK} port={self.port} user={_ADMIN} dbname=pgbouncer "
            f"password={self.admin_password.reveal()}"
        )

    def write(self) -> None:
        entries = "\n".join(f"{alias} = {target}" for alias, target in self._databases.items())
        users = "\n".join(f'"{login}" "{verifier}"' for login, verifier in self._users.items())
        for name, text in (("databases.ini", f"[databases]\n{entries}\n"), ("users.txt", users)):
            draft = self.directory / f"{name}.draft"
            draft.write_text(text + "\n")
            give(draft, self._account, 0o600)
            draft.replace(self.directory / name)

    def _main(self) -> str:
        return (
            f"%include {self.directory}/databases.ini\n[pgbouncer]\nlisten_addr = {LOOPBACK}\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
            f"auth_file = {self.directory}/users.txt\nadmin_users = {_ADMIN}\n"
            "pool_mode = transaction\nserver_login_retry = 1\nmax_client_conn = 2000\n"
            "log_connections = 0\nlog_disconnections = 0\n"
        )

    def _start(self) -> "subprocess.Popen[bytes]":
        account = self._account
        process = subprocess.Popen(
            [binaries.pgbouncer(), "-q", str(self.directory / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and process.poll() is None:
            if _answers(self.port):
                return process
            time.sleep(0.02)
        raise RuntimeError("the raw PgBouncer did not start")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
