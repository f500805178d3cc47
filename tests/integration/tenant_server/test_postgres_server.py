"""Connections to tenant servers: SCRAM or nothing, TLS that verifies, sessions that fence."""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from control_plane.adapters.admin_sessions import IDLE_NAME, AdminSessions, terminate_stale
from control_plane.adapters.postgres_server import (
    ServerAddress,
    connect,
    require_server,
    translate,
)
from control_plane.config import Secret
from control_plane.domain.errors import (
    DiskFull,
    Invalid,
    ObjectInUse,
    ServerRefused,
    ServerUnavailable,
    TenantMismatch,
    TenantryError,
    UnexpectedDatabaseError,
)
from tests.integration.tenant_server.postgres_fixture import (
    HOST_NAME,
    WITH_TLS,
    ScriptedServer,
    TenantServer,
)

PASSWORD = Secret("canary-of-the-administrator")


@pytest.fixture
async def sessions() -> AsyncIterator[AdminSessions]:
    made = AdminSessions()
    yield made
    await made.close()


def request(status: int, body: bytes = b"") -> bytes:
    return b"R" + struct.pack("!II", 8 + len(body), status) + body


SASL = request(10, b"SCRAM-SHA-256\0\0")
OK = request(0)
CLEARTEXT = request(3)
MD5 = request(5, b"salt")
READY = b"Z" + struct.pack("!I", 5) + b"I"


def continued(text: bytes) -> bytes:
    """A server-first message whose length is right once the 32 characters of nonce are in it."""
    body = text.replace(b"<nonce>", b"n" * 32)
    return b"R" + struct.pack("!II", 8 + len(body), 11) + text


HOSTILE = {
    "cleartext": [CLEARTEXT],
    "md5": [MD5],
    "no authentication": [OK + READY],
    "kerberos": [request(7)],
    "cleartext in the middle of scram": [SASL, CLEARTEXT],
    "md5 in the middle of scram": [SASL, MD5],
    "cleartext glued to the offer of scram": [SASL + CLEARTEXT],
    "no proof of its own": [
        SASL,
        continued(b"r=<nonce>evil,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        OK + READY,
    ],
    "two billion rounds of hashing": [
        SASL,
        continued(b"r=<nonce>evil,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2147483647"),
    ],
    "a web server": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "ready without a handshake": [READY],
}


def traces_of(password: Secret) -> list[bytes]:
    plain = password.reveal().encode()
    inner = hashlib.md5(plain + b"admin", usedforsecurity=False).hexdigest().encode()
    md5 = hashlib.md5(inner + b"salt", usedforsecurity=False).hexdigest().encode()
    return [plain, inner, md5]


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_hostile_server_learns_nothing(script: list[bytes], *, in_pieces: bool) -> None:
    async with ScriptedServer(script, in_pieces=in_pieces) as hostile:
        started = time.monotonic()
        with pytest.raises(ServerRefused):
            await connect(_address(hostile.port), timeout=3)
    assert time.monotonic() - started < 2
    for trace in traces_of(PASSWORD):
        assert trace not in hostile.received


async def test_the_handshake_does_reach_the_client_proof() -> None:
    """Or the scripts that end SCRAM early would be refused for another reason."""
    async with ScriptedServer(HOSTILE["no proof of its own"]) as hostile:
        with pytest.raises(ServerRefused, match="no password"):
            await connect(_address(hostile.port))
    assert b"c=biws" in hostile.received


async def test_the_plain_driver_would_have_told_it_everything() -> None:
    """The control of the test above: without the gate the secret does reach the server."""
    for script, trace in ((CLEARTEXT, 0), (MD5, 2)):
        async with ScriptedServer([script]) as hostile:
            with pytest.raises((TimeoutError, OSError, asyncpg.PostgresError)):
                await asyncpg.connect(
                    host="127.0.0.1",
                    port=hostile.port,
                    user="admin",
                    password=PASSWORD.reveal(),
                    database="postgres",
                    ssl=False,
                    timeout=0.3,
                )
        assert traces_of(PASSWORD)[trace] in hostile.received


async def test_the_refusal_says_what_to_do() -> None:
    async with ScriptedServer([CLEARTEXT]) as hostile:
        with pytest.raises(ServerRefused, match=r"cleartext password.*pg_hba\.conf") as caught:
            await connect(_address(hostile.port))
    assert PASSWORD.reveal() not in str(caught.value)


async def test_an_error_before_authentication_is_understood() -> None:
    fields = b"SFATAL\0C53300\0Msorry, too many clients already\0\0"
    async with ScriptedServer([b"E" + struct.pack("!I", len(fields) + 4) + fields]) as full:
        with pytest.raises(ServerUnavailable, match="too many clients"):
            await connect(_address(full.port))


def _address(port: int) -> ServerAddress:
    return ServerAddress(
        host="127.0.0.1", port=port, user="admin", password=PASSWORD, tls="disable"
    )


async def test_the_right_password_gets_in_and_a_wrong_one_is_final(
    tenant_server: TenantServer,
) -> None:
    connection = await tenant_server.admin()
    assert await connection.fetchval("SHOW search_path") == "pg_catalog"
    await connection.close()
    wrong = ServerAddress(
        host="127.0.0.1",
        port=tenant_server.port,
        user="tenantry_admin",
        password=PASSWORD,
        tls="disable",
    )
    with pytest.raises(ServerRefused, match="28P01") as caught:
        await connect(wrong)
    assert not caught.value.retryable


async def test_nobody_there_can_be_tried_again() -> None:
    async with ScriptedServer([]) as closed:
        port = closed.port
    with pytest.raises(ServerUnavailable) as caught:
        await connect(_address(port))
    assert caught.value.retryable


async def test_silence_ends_with_the_timeout() -> None:
    async with ScriptedServer([]) as silent:
        with pytest.raises(ServerUnavailable, match="in time"):
            await connect(_address(silent.port), timeout=0.2)


async def test_the_wrong_server_is_recognised(tenant_server: TenantServer) -> None:
    connection = await tenant_server.admin()
    found = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    await require_server(connection, found)
    with pytest.raises(TenantMismatch, match="system identifier"):
        await require_server(connection, found + 1)
    await connection.close()


async def test_tls_dials_the_address_and_verifies_the_name(tenant_server: TenantServer) -> None:
    known, other, ca_pem = HOST_NAME, "other.tenantry.test", tenant_server.ca_pem
    accepted = [
        tenant_server.address(tls="verify-full", host=known, ca_pem=ca_pem),
        tenant_server.address(tls="require", host=other, ca_pem=ca_pem),
        tenant_server.address(tls="require", host=other),
    ]
    refused = [
        tenant_server.address(tls="verify-full", host=other, ca_pem=ca_pem),
        tenant_server.address(tls="verify-full", host=known),
    ]
    if tenant_server.version != WITH_TLS:
        for address in (*accepted, *refused):
            with pytest.raises(ServerRefused, match="has no TLS"):
                await connect(address)
        return
    for address in accepted:
        connection = await connect(address)
        encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(encrypted)
        await connection.close()
    for address in refused:
        with pytest.raises(ServerRefused, match="CERTIFICATE_VERIFY_FAILED"):
            await connect(address)


@pytest.mark.parametrize(
    "host",
    ["", "/var/run/postgresql", "a,b", "user@host", "host dbname=x", "ho\nst", "[::1]", "-x"],
)
def test_only_a_plain_host_is_taken(host: str) -> None:
    with pytest.raises(Invalid, match="host"):
        ServerAddress(host=host, port=5432, user="x", password=PASSWORD)
    with pytest.raises(Invalid, match="hostaddr"):
        ServerAddress(host="db", hostaddr=host or "/", port=5432, user="x", password=PASSWORD)


def test_an_address_does_not_print_its_password() -> None:
    assert PASSWORD.reveal() not in repr(_address(5432))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.DiskFullError("could not extend file"), DiskFull),
        (asyncpg.ObjectInUseError("source database is being accessed"), ObjectInUse),
        (asyncpg.LockNotAvailableError("canceling statement"), ObjectInUse),
        (asyncpg.DeadlockDetectedError("deadlock"), ObjectInUse),
        (asyncpg.SerializationError("could not serialize"), ObjectInUse),
        (asyncpg.InternalServerError("tuple concurrently updated"), ObjectInUse),
        (asyncpg.CannotConnectNowError("starting up"), ServerUnavailable),
        (asyncpg.AdminShutdownError("terminating connection"), ServerUnavailable),
        (asyncpg.ConnectionDoesNotExistError("connection was closed"), ServerUnavailable),
        (asyncpg.InterfaceError("connection is closed"), ServerUnavailable),
        (ConnectionResetError("reset"), ServerUnavailable),
        (asyncpg.InsufficientPrivilegeError("permission denied"), ServerRefused),
        (asyncpg.UndefinedTableError("no such table"), UnexpectedDatabaseError),
        (asyncpg.InternalServerError("anything else"), UnexpectedDatabaseError),
    ],
)
def test_every_error_has_a_meaning(error: Exception, kind: type[TenantryError]) -> None:
    assert type(translate(error)) is kind


async def test_a_session_is_named_locked_and_kept_warm(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key, address = uuid4(), tenant_server.address()
    watcher = await tenant_server.admin()
    seen = "SELECT application_name FROM pg_stat_activity WHERE pid = $1"
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1"
    async with sessions.session(key, address, "cp:op1:1") as connection:
        first = connection.get_server_pid()
        assert await watcher.fetchval(seen, first) == "cp:op1:1"
        assert await watcher.fetchval(locks, first) == 1
        await connection.execute("SET search_path = public")
    assert await watcher.fetchval(seen, first) == IDLE_NAME
    assert await watcher.fetchval(locks, first) == 0
    async with sessions.session(key, address, "cp:op2:1") as connection:
        assert connection.get_server_pid() == first
        assert await connection.fetchval("SHOW search_path") == "pg_catalog"
    await watcher.close()


async def test_one_operation_acts_once_at_a_time(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key, address, inside = uuid4(), tenant_server.address(), []

    async def act(name: str) -> None:
        async with sessions.session(key, address, name) as connection:
            inside.append(name)
            assert len(inside) == 1
            await connection.execute("SELECT pg_sleep(0.05)")
            inside.remove(name)

    await asyncio.gather(*(act("cp:op1:1") for _ in range(4)))


async def test_different_operations_do_not_wait_for_each_other(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key, address = uuid4(), tenant_server.address()
    async with (
        sessions.session(key, address, "cp:op1:1") as one,
        sessions.session(key, address, "cp:op2:1") as two,
    ):
        assert one.get_server_pid() != two.get_server_pid()


async def test_a_later_epoch_ends_the_earlier_one(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key, address = uuid4(), tenant_server.address()

    async def overtaken() -> None:
        async with (
            sessions.session(key, address, "cp:op1:1") as frozen,
            AdminSessions().session(key, address, "cp:op1:2") as successor,
        ):
            assert await successor.fetchval("SELECT 1") == 1
            await frozen.fetchval("SELECT 1")

    with pytest.raises(ServerUnavailable):
        await overtaken()


async def test_a_worker_that_wakes_up_late_cannot_end_its_successor(
    tenant_server: TenantServer,
) -> None:
    successor = await connect(tenant_server.address(), application_name="cp:op1:10")
    zombie = await connect(tenant_server.address(), application_name="cp:op1:9")
    other = await connect(tenant_server.address(), application_name="cp:op11:1")
    assert await terminate_stale(zombie, "cp:op1:", "cp:op1:9") == 0
    assert await successor.fetchval("SELECT 1") == 1
    assert await terminate_stale(successor, "cp:op1:", "cp:op1:10") == 1
    assert await other.fetchval("SELECT 1") == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await zombie.fetchval("SELECT 1")
    for connection in (successor, other):
        await connection.close()


async def test_a_connection_that_died_while_idle_is_replaced(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key, address = uuid4(), tenant_server.address()
    async with sessions.session(key, address, "cp:op1:1") as connection:
        first = connection.get_server_pid()
    killer = await tenant_server.admin()
    await killer.execute("SELECT pg_terminate_backend($1, 5000)", first)
    async with sessions.session(key, address, "cp:op1:2") as connection:
        assert connection.get_server_pid() != first
    await killer.close()


async def test_after_an_error_the_connection_is_not_used_again(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key, address, pids = uuid4(), tenant_server.address(), []

    async def fail() -> None:
        async with sessions.session(key, address, "cp:op1:1") as connection:
            pids.append(connection.get_server_pid())
            await connection.execute("SELECT 1 / 0")

    with pytest.raises(UnexpectedDatabaseError, match="division by zero"):
        await fail()
    async with sessions.session(key, address, "cp:op1:1") as connection:
        assert connection.get_server_pid() not in pids


async def test_a_changed_password_is_not_answered_with_an_old_connection(
    tenant_server: TenantServer, sessions: AdminSessions
) -> None:
    key = uuid4()
    async with sessions.session(key, tenant_server.address(), "cp:op1:1"):
        pass
    changed = ServerAddress(
        host=HOST_NAME,
        hostaddr="127.0.0.1",
        port=tenant_server.port,
        user="tenantry_admin",
        password=PASSWORD,
        tls="disable",
    )
    with pytest.raises(ServerRefused):
        async with sessions.session(key, changed, "cp:op1:2"):
            pass


async def test_the_system_looks_after_a_server_that_says_nothing(
    tenant_server: TenantServer,
) -> None:
    connection = await tenant_server.admin()
    wire = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
    await connection.close()
