"""A server whose name leads to another address: followed where it proves itself, else not."""

import socket

import pytest

from control_plane.catalog import audit
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.services.ports import Ports
from control_plane.services.servers import get_server, watch_servers
from tests.integration.servers.requests import enrolled, request_for
from tests.integration.tenant_server.postgres_fixture import HOST_NAME, TenantServer

OLD, NEW = "127.0.0.9", "127.0.0.1"
METADATA = "169.254.169.254"


def leads_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


@pytest.fixture
async def moved(
    ports: Ports,
    db: Connection,
    fleet: dict[int, TenantServer],
    monkeypatch: pytest.MonkeyPatch,
) -> Server:
    """Enrolled with a certificate; by now nobody answers at the address that was enrolled."""
    leads_to(monkeypatch, NEW)
    with_tls = fleet[15]
    server = await enrolled(ports, request_for(with_tls, host=HOST_NAME, ca_pem=with_tls.ca_pem))
    assert (server.tls, server.hostaddr) == ("verify-full", NEW)
    await db.execute("UPDATE servers SET hostaddr = $2 WHERE id = $1", server.id, OLD)
    return server


async def test_who_proves_to_be_the_same_is_followed(
    ports: Ports, db: Connection, moved: Server
) -> None:
    for _ in range(2):
        await watch_servers(ports)
        seen = await get_server(db, moved.name)
        assert (seen.hostaddr, seen.reachable, seen.problem) == (NEW, True, None)
    events = await audit.page(db, before=None, limit=10)
    told = [(one.action, one.facts) for one in events if one.action != "server.add"]
    assert told == [("server.readdressed", {"from": OLD, "to": NEW})]


@pytest.mark.parametrize(
    ("column", "value"),
    [("tls", "require"), ("system_identifier", 1), ("host", "other.tenantry.test")],
)
async def test_who_does_not_prove_it_is_not_followed(
    ports: Ports, db: Connection, moved: Server, column: str, value: object
) -> None:
    change = f"UPDATE servers SET {column} = $2 WHERE id = $1"  # noqa: S608 - a name from above
    await db.execute(change, moved.id, value)
    await watch_servers(ports)
    seen = await get_server(db, moved.name)
    assert (seen.hostaddr, seen.reachable) == (OLD, False)
    assert seen.problem


@pytest.mark.parametrize("address", [METADATA, OLD])
async def test_a_name_that_leads_where_it_may_not_is_not_followed(
    ports: Ports,
    db: Connection,
    moved: Server,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
) -> None:
    leads_to(monkeypatch, address)
    await watch_servers(ports)
    seen = await get_server(db, moved.name)
    assert (seen.hostaddr, seen.reachable) == (OLD, False)
