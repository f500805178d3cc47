"""Postgres servers: made once, configured at every start, run in the foreground."""

import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.catalog_role import Administrator
from deploy.local.account import Account, give
from deploy.local.binaries import PostgresBinaries
from deploy.local.files import secret_once, write_whole
from deploy.local.keeper import Service
from deploy.local.layout import Layout
from deploy.local.ports import LOOPBACK
from deploy.local.problem import StackError
from deploy.local.ready import postgres
from deploy.local.spawn import Program, run_once

ADMIN = "tenantry_admin"
TIER = 1

SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "max_connections": "400",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    "recovery_init_sync_method": "syncfs",  # crash start in 2 s with 2,000 databases, not 80 s
    "max_wal_size": "4GB",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_checkpoints": "off",
    # Parameters are patients' data: they stay out of the log, those of failing statements too.
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "track_io_timing": "off",
}
TENANT_SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_logical_replication_workers": "10",
    "max_worker_processes": "20",
    "max_slot_wal_keep_size": "4GB",
    "autovacuum_naptime": "10min",  # a database a second or so, not hundreds a minute
}
STATEMENTS = "pg_stat_statements"
# As many kinds of statements as a thousand tenants run; fewer, and the servers forget all the time.
STATEMENT_SETTINGS: Mapping[str, str] = {
    "shared_preload_libraries": STATEMENTS,
    f"{STATEMENTS}.max": "50000",
}
HBA = f"""\
# Passwords everywhere: neither trust nor peer.
local all         all              scram-sha-256
host  all         all {LOOPBACK}/32 scram-sha-256
host  replication all {LOOPBACK}/32 scram-sha-256
"""


@dataclass(frozen=True)
class PostgresServer:
    """One Postgres server of the stack; ``key`` is the catalog's id of one that was asked for."""

    name: str
    port: int
    binaries: PostgresBinaries
    layout: Layout
    account: Account | None
    settings: Mapping[str, str]
    key: str | None = None

    @property
    def data(self) -> Path:
        return self.layout.postgres_data(self.name)

    @property
    def _draft(self) -> Path:
        return self.data.with_name(f".{self.name}.draft")

    @property
    def password_file(self) -> Path:
        return self.layout.secret(f"{self.name}.password")

    def service(self) -> Service:
        program = self._program("postgres", "-D", str(self.data))
        return Service(
            name=self.name,
            program=program,
            ready=postgres(self.data),
            tier=TIER,
            port=self.port,
            stop_signal=signal.SIGINT,  # fast shutdown: SIGTERM would wait for the clients
            grace_seconds=60,
            ready_seconds=120,
            before=self._forget_stale_lock,
        )

    async def make(self) -> None:
        """Create the cluster if it does not exist, and write its configuration.

        The cluster is made beside its place and renamed into it, so an interrupted initdb
        leaves nothing that looks like a server.

        Raises:
            StackError: initdb failed, or the data is of another major version.
        """
        if not self.data.exists():
            await self._initdb()
        found = int((self.data / "PG_VERSION").read_text())
        if found != self.binaries.major:
            raise StackError(
                f"{self.data} was made by Postgres {found}, and {self.binaries.directory} is "
                f"{self.binaries.major}; set PG_BIN_DIR to Postgres {found}'s, or ./dev reset"
            )
        write_whole(self.data / "postgresql.conf", self.configuration(), 0o600, self.account)
        write_whole(self.data / "pg_hba.conf", HBA, 0o600, self.account)

    async def _initdb(self) -> None:
        draft = self._draft
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir()
        give(draft, self.account, 0o700)
        sync = ["--no-sync"] if self.settings.get("fsync") == "off" else []
        with tempfile.NamedTemporaryFile("w", dir=self.layout.run) as password:
            password.write(secret_once(self.password_file))
            password.flush()
            give(Path(password.name), self.account, 0o600)
            program = self._program(
                *("initdb", "--pgdata", str(draft), "--username", ADMIN),
                *("--pwfile", password.name, "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8", *sync),
            )
            await run_once(program, f"initdb of {self.name}")
        draft.rename(self.data)

    def erase(self) -> None:
        """Delete its data and its password; the server must not run."""
        for directory in (self._draft, self.data):
            if directory.exists():
                shutil.rmtree(directory)
        self.password_file.unlink(missing_ok=True)

    def configuration(self) -> str:
        """The whole of ``postgresql.conf``; settings given by the caller win over ours."""
        own = {
            "port": str(self.port),
            "unix_socket_directories": str(self.layout.run / "postgres"),
            "cluster_name": self.name,
        }
        lines = ["# Written by ./dev up at every start."]
        for name, value in {**SETTINGS, **self.settings, **own}.items():
            escaped = value.replace("'", "''")
            lines.append(f"{name} = '{escaped}'")
        return "\n".join(lines) + "\n"

    def _forget_stale_lock(self) -> None:
        """Remove the lock file of a postmaster that is gone.

        Postgres itself refuses to start when the number in it now belongs to any other
        process of its user, such as one of the other servers after a reboot.
        """
        lock = self.data / "postmaster.pid"
        if not lock.exists():
            return
        pid = lock.read_text().split("\n", 1)[0]
        try:
            alive = (Path("/proc") / pid / "cwd").resolve(strict=True) == self.data.resolve()
        except (FileNotFoundError, ProcessLookupError):
            alive = False
        if not alive:
            lock.unlink(missing_ok=True)

    def _program(self, name: str, *arguments: str) -> Program:
        return Program(
            argv=(self.binaries.program(name), *arguments),
            home=self.layout.home,
            account=self.account,
            environment={"LC_ALL": "C.UTF-8", "TZ": "UTC"},
            orphan_signal=signal.SIGINT,
        )


def administrator(server: PostgresServer) -> Administrator:
    """The login that ``initdb`` made."""
    return Administrator(LOOPBACK, server.port, ADMIN, secret_once(server.password_file))
