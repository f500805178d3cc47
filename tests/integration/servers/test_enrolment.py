"""What is looked at before a server is enrolled, and everything that refuses one."""

import re
import socket
from unittest.mock import patch

import msgspec
import pytest

from control_plane.adapters import server_probe
from control_plane.config import Secret
from control_plane.domain.errors import Invalid, ServerRefused, ServerRejected, ServerUnavailable
from control_plane.domain.preflight import assess
from control_plane.domain.preflight_facts import Check, Profile
from control_plane.services.enrolment import NewServer, probe_server
from control_plane.services.ports import Ports
from tests.integration.servers.requests import added, request_for
from tests.integration.tenant_server import postgres_fixture
from tests.integration.tenant_server.postgres_fixture import (
    ADMIN,
    HOST_NAME,
    ScriptedServer,
    TenantServer,
    running_server,
)

# https://www.postgresql.org/docs/current/protocol-message-formats.html
ASKS_FOR_CLEARTEXT = b"R\0\0\0\x08\0\0\0\x03"
CANARY = Secret("canary-of-the-administrator")


async def nothing_was_left(ports: Ports) -> bool:
    async with ports.catalog.connection() as db:
        counts = await db.fetchrow(
            """SELECT (SELECT count(*) FROM servers), (SELECT count(*) FROM operations),
                      (SELECT count(*) FROM audit_events)"""
        )
    assert counts is not None
    return tuple(counts.values()) == (0, 0, 0)


def problems(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.level == "problem"]


async def test_the_probe_reads_a_good_server_right(server: TenantServer) -> None:
    facts = await server_probe.probe(server.address())
    admin = await server.admin()
    identifier = await admin.fetchval("SELECT system_identifier FROM pg_control_system()")
    await admin.close()
    assert (facts.major, facts.system_identifier, facts.user) == (server.version, identifier, ADMIN)
    assert (facts.may.superuser, facts.in_recovery, facts.encrypted) == (True, False, False)
    assert (facts.encoding, facts.locale, facts.stale_collations) == ("UTF8", "C.UTF-8", {})
    assert facts.settings["wal_level"] == "logical"
    assert facts.settings["max_connections"] == "200"
    assert facts.settings["log_parameter_max_length"] == "-1"
    assert (facts.slots_used, facts.senders_used) == (0, 0)
    assert {"pg_trgm", "plpgsql"} <= facts.extensions
    assert abs(facts.clock_ahead_seconds) < 5
    checks = assess(facts, Profile("disable", 100))
    assert problems(checks) == []
    assert {c.name for c in checks if c.level == "advice"} >= {"tls", "fsync", "autovacuum_naptime"}


async def test_slots_in_use_are_counted(server: TenantServer) -> None:
    admin = await server.admin()
    await admin.execute("SELECT pg_create_physical_replication_slot('held')")
    facts = await server_probe.probe(server.address())
    await admin.execute("SELECT pg_drop_replication_slot('held')")
    await admin.close()
    assert facts.slots_used == 1


async def test_a_server_with_many_faults_is_told_all_of_them_and_the_remedies_are_real_sql(
    ports: Ports,
) -> None:
    faults = {
        "wal_level": "replica",
        "max_replication_slots": "2",
        "max_wal_senders": "2",
        "max_connections": "40",
        "password_encryption": "md5",
    }
    with patch.dict(postgres_fixture._OPTIONS, faults), running_server(15) as weak:
        with pytest.raises(ServerRejected, match="5 problems") as rejected:
            await added(ports, request_for(weak))
        assert {error["field"] for error in rejected.value.errors} == set(faults)
        facts = await server_probe.probe(weak.address())
        checks = assess(facts, Profile("disable", 100))
        remedies = [statement for check in checks for statement in _statements(check)]
        assert len(remedies) > len(faults)
        admin = await weak.admin()
        for statement in remedies:
            await admin.execute(statement)
        written = await admin.fetch("SELECT name, setting FROM pg_file_settings")
        await admin.close()
    mended = {row["name"]: row["setting"] for row in written if row["name"] in faults}
    later = msgspec.structs.replace(facts, settings=facts.settings | mended)
    assert problems(assess(later, Profile("disable", 100))) == []
    assert await nothing_was_left(ports)


def _statements(check: Check) -> list[str]:
    return re.findall(r"ALTER SYSTEM SET [a-z_]+ = [^;]+(?=; then)", check.remedy or "")


async def test_an_administrator_without_power_is_refused_with_what_is_missing(
    ports: Ports, server: TenantServer
) -> None:
    admin = await server.admin()
    await admin.execute("CREATE ROLE helper LOGIN CREATEROLE PASSWORD 'helpers-own-password'")
    wanted = request_for(server, user="helper", password=Secret("helpers-own-password"))
    with pytest.raises(ServerRejected) as rejected:
        await added(ports, wanted)
    await admin.execute("DROP ROLE helper")
    await admin.close()
    assert [error["field"] for error in rejected.value.errors] == ["administrator"]
    found = {15: "helper is no superuser on Postgres 15", 18: "helper lacks CREATEDB"}
    assert found[server.version] in rejected.value.errors[0]["message"]


async def test_a_wrong_password_is_refused_and_nothing_is_left(
    ports: Ports, server: TenantServer
) -> None:
    with pytest.raises(ServerRefused, match="password authentication failed") as refused:
        await added(ports, request_for(server, password=CANARY))
    assert refused.value.message.startswith(f"{ADMIN} at 127.0.0.1:{server.port}: ")
    assert refused.value.message.endswith("check the user and the password")
    assert CANARY.reveal() not in refused.value.message
    assert await nothing_was_left(ports)


async def test_a_closed_port_is_unavailable_and_nothing_is_left(
    ports: Ports, fleet: dict[int, TenantServer]
) -> None:
    async with ScriptedServer([]) as closed:
        port = closed.port
    with pytest.raises(ServerUnavailable, match=f"127.0.0.1:{port}: the server does not answer"):
        await added(ports, request_for(fleet[18], port=port))
    assert await nothing_was_left(ports)


async def test_a_server_that_asks_for_the_password_in_clear_learns_nothing(ports: Ports) -> None:
    async with ScriptedServer([ASKS_FOR_CLEARTEXT]) as fake:
        wanted = NewServer(
            name="pg-a", host="127.0.0.1", port=fake.port, user=ADMIN, password=CANARY
        )
        with pytest.raises(ServerRefused, match="cleartext password"):
            await added(ports, wanted)
    assert ADMIN.encode() in fake.received
    assert CANARY.reveal().encode() not in fake.received
    assert await nothing_was_left(ports)


async def test_a_pooler_is_no_server(ports: Ports) -> None:
    """PgBouncer answers so, before authentication, to settings that it does not know."""
    fields = b"SFATAL\0C08P01\0Munsupported startup parameter: search_path\0\0"
    async with ScriptedServer([b"E" + (len(fields) + 4).to_bytes(4) + fields]) as pooler:
        wanted = NewServer(
            name="pg-a", host="127.0.0.1", port=pooler.port, user=ADMIN, password=CANARY
        )
        with pytest.raises(ServerRefused, match="a pooler answers here"):
            await added(ports, wanted)


async def test_a_loopback_server_needs_a_network_that_allows_it(
    ports: Ports, server: TenantServer
) -> None:
    settings = msgspec.structs.replace(ports.settings, server_networks=())
    strict = msgspec.structs.replace(ports, settings=settings)
    with pytest.raises(Invalid, match="TENANTRY_SERVER_NETWORKS") as refused:
        await probe_server(strict, request_for(server))
    assert refused.value.errors[0]["field"] == "host"


async def test_bad_fields_are_told_all_at_once(
    ports: Ports, fleet: dict[int, TenantServer]
) -> None:
    wanted = request_for(
        fleet[18],
        "Bad Name",
        host="a,b",
        port=0,
        user="",
        password=Secret("nul\0byte"),
        capacity=0,
        region="\0",
        labels={"": "x"},
        ca_pem="no certificate",
        tls="disable",
    )
    with pytest.raises(Invalid) as refused:
        await probe_server(ports, wanted)
    fields = [error["field"] for error in refused.value.errors]
    assert sorted(fields) == [
        *("ca_pem", "capacity", "host", "labels", "name"),
        *("password", "port", "region", "tls", "user"),
    ]


async def test_a_certificate_is_verified_against_the_name_while_the_address_is_dialled(
    ports: Ports, fleet: dict[int, TenantServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tls, without = fleet[15], fleet[18]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    named = request_for(with_tls, host=HOST_NAME, ca_pem=with_tls.ca_pem)
    probed = await probe_server(ports, named)
    assert (probed.tls, probed.hostaddr) == ("verify-full", "127.0.0.1")
    assert {c.name: c.level for c in probed.checks}["tls"] == "ok"
    with pytest.raises(ServerRefused, match="TLS with the server failed"):
        await probe_server(ports, msgspec.structs.replace(named, host="other.tenantry.test"))
    with pytest.raises(ServerRefused, match="the server has no TLS"):
        await probe_server(ports, request_for(without, tls="require"))
