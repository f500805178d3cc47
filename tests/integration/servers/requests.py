"""Enrolling a server as the API does it, and carrying the operation out as a worker does."""

from uuid import uuid4

from control_plane.catalog import operations, servers
from control_plane.catalog.audit import Caller
from control_plane.catalog.servers import Server
from control_plane.domain.keys import Principal
from control_plane.domain.operations import Operation
from control_plane.services.enrolment import NewServer, probe_server
from control_plane.services.ports import Ports
from control_plane.services.servers import add_server
from tests.integration.tenant_server.postgres_fixture import ADMIN, TenantServer
from workers import enrol
from workers.engine.runner import Runner

CALLER = Caller(Principal(uuid4(), "olga", frozenset({"security_admin"})), "127.0.0.1")


def request_for(server: TenantServer, name: str = "pg-a", **fields: object) -> NewServer:
    base: dict[str, object] = {
        "name": name,
        "host": "127.0.0.1",
        "port": server.port,
        "user": ADMIN,
        "password": server.password,
        "capacity": 100,
    }
    return NewServer(**(base | fields))  # type: ignore[arg-type]  # checked by the struct's users


async def added(ports: Ports, wanted: NewServer) -> Operation:
    """The request as the API carries it out: look first, then record in one transaction."""
    probed = await probe_server(ports, wanted)
    async with ports.catalog.transaction() as db:
        return await add_server(db, ports, CALLER, wanted, probed)


async def enrolled(ports: Ports, wanted: NewServer) -> Server:
    operation = await added(ports, wanted)
    ended = await advanced(ports, operation)
    assert ended.state == "succeeded", ended
    async with ports.catalog.connection() as db:
        return await servers.find(db, wanted.name)


async def advanced(ports: Ports, operation: Operation) -> Operation:
    runner = Runner(ports, {"enrol": enrol.VERB})
    await runner.advance(operation.id)
    await runner._sessions.close()
    async with ports.catalog.connection() as db:
        return await operations.get(db, operation.id)
