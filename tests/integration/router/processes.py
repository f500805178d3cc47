"""Throw-away Postgres clusters, PgBouncer processes and agents that a test may freeze or kill."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from control_plane.config import PoolerSettings, Secret, child_environment

BINARIES = Path("/usr/lib/postgresql/15/bin")
ADMIN = "tenantry_admin"
LOCALHOST = "127.0.0.1"
_SECONDS = 30.0
_OPTIONS = {
    "listen_addresses": "localhost",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "100",
    "ssl": "on",
    "ssl_cert_file": "server.crt",
    "ssl_key_file": "server.key",
    "log_min_messages": "fatal",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port


def as_postgres(command: list[str]) -> list[str]:
    """Neither Postgres nor PgBouncer runs as root, and neither may outlive the tests."""
    user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", "--pdeathsig=KILL", *user, "--", *command]


def give_away(path: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(path, account.pw_uid, account.pw_gid)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {_SECONDS} s")
        time.sleep(0.02)


@dataclass
class Managed:
    """A process that is started, frozen, thawed, killed and started again."""

    log: Path
    process: subprocess.Popen[bytes] | None = None

    def launch(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd="/"
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals, *, family: bool = False) -> None:
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True) if family else []
        for pid in [self.process.pid, *(child.pid for child in children)]:
            os.kill(pid, number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP, family=True)

    def thaw(self) -> None:
        self.send(signal.SIGCONT, family=True)

    def end(self, number: signal.Signals) -> float:
        """Stop it; seconds that this took."""
        started = time.monotonic()
        if self.process is not None and self.alive:
            self.send(number)
            self.process.wait(_SECONDS)
        return time.monotonic() - started


@dataclass
class Cluster(Managed):
    """One Postgres cluster with TLS, whose own certificate names ``localhost``."""

    data: Path = Path()
    port: int = field(default_factory=free_port)
    password: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(24)))

    @property
    def certificate(self) -> str:
        return (self.data / "server.crt").read_text()

    def make(self) -> None:
        self.data.mkdir(mode=0o700)
        password = self.data.with_suffix(".password")
        password.write_text(self.password.reveal())
        give_away(self.data)
        give_away(password)
        create = [str(BINARIES / "initdb"), f"--pgdata={self.data}", f"--username={ADMIN}"]
        create += [f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync"]
        create += ["--encoding=UTF8", "--locale=C.UTF-8"]
        subprocess.run(as_postgres(create), check=True, capture_output=True)
        certify = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        certify += ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        certify += ["-keyout", str(self.data / "server.key")]
        certify += ["-out", str(self.data / "server.crt")]
        subprocess.run(as_postgres(certify), check=True, capture_output=True)

    def start(self) -> None:
        options = [f"--{name}={value}" for name, value in _OPTIONS.items()]
        command = [
            str(BINARIES / "postgres"),
            "-D",
            str(self.data),
            f"--port={self.port}",
            *options,
        ]
        self.launch(as_postgres(command))
        ask = [
            str(BINARIES / "pg_isready"),
            "--quiet",
            f"--host={LOCALHOST}",
            f"--port={self.port}",
        ]
        until(lambda: subprocess.run(ask, check=False).returncode == 0, "start of Postgres")

    def stop(self) -> None:
        self.end(signal.SIGINT)

    def dsn(self, database: str) -> str:
        return f"postgresql://{ADMIN}@{LOCALHOST}:{self.port}/{database}?sslmode=disable"


class PoolerHome:
    """One PgBouncer with its agent, and what a test may do to either."""

    def __init__(self, base: Path, name: str, cell: str, environment: Mapping[str, str]) -> None:
        self.base = base / name
        self.base.mkdir(mode=0o755)
        self.settings = PoolerSettings(
            name=name,
            cell=cell,
            host=LOCALHOST,
            port=free_port(),
            directory=self.base / "conf",
            socket_dir=self.base / "sock",
            console_password=Secret(secrets.token_urlsafe(24)),
        )
        for directory in (self.settings.directory, self.settings.socket_dir):
            directory.mkdir(mode=0o700)
            give_away(directory)
        password = self.base / "console.password"
        password.write_text(self.settings.console_password.reveal())
        password.chmod(0o600)
        self.environment = child_environment(
            **environment,
            TENANTRY_POOLER_NAME=name,
            TENANTRY_POOLER_CELL=cell,
            TENANTRY_POOLER_HOST=LOCALHOST,
            TENANTRY_POOLER_PORT=str(self.settings.port),
            TENANTRY_POOLER_DIR=str(self.settings.directory),
            TENANTRY_POOLER_SOCKET_DIR=str(self.settings.socket_dir),
            TENANTRY_POOLER_CONSOLE_PASSWORD_FILE=str(password),
        )
        self.pgbouncer = Managed(self.base / "pgbouncer.log")
        self.agent = Managed(self.base / "agent.log")

    def prepare(self) -> None:
        subprocess.run(
            [*self._agent, "--init"], check=True, capture_output=True, env=self.environment
        )

    def start_pgbouncer(self) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        ini = self.settings.directory / "pgbouncer.ini"
        self.pgbouncer.launch(as_postgres([program, str(ini)]))
        until(self._listens, "start of PgBouncer")

    def start_agent(self) -> None:
        self.agent.launch(["setpriv", "--pdeathsig=KILL", "--", *self._agent], self.environment)

    def stop(self) -> None:
        self.agent.end(signal.SIGKILL)
        self.pgbouncer.end(signal.SIGKILL)

    def file(self, name: str) -> Path:
        return self.settings.directory / name

    @property
    def _agent(self) -> list[str]:
        return [sys.executable, "-m", "control_plane.router.agent"]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOCALHOST, self.settings.port)) == 0
