"""Enrolling servers, from the request to a server that takes tenants, on real Postgres 15 and 18."""

import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest.mock import patch
from uuid import UUID, uuid4

import msgspec
import pytest

from control_plane.adapters import server_probe, tenant_schema
from control_plane.adapters.kms import Keyring
from control_plane.catalog import audit, databases, operations, poolers, routes, servers
from control_plane.catalog.audit import Caller
from control_plane.catalog.databases import Database
from control_plane.catalog.migrate import migrate
from control_plane.catalog.pool import Catalog, Connection
from control_plane.catalog.servers import Server
from control_plane.config import REPOSITORY, Secret, Settings
from control_plane.domain.errors import (
    Conflict,
    Invalid,
    NoCapacity,
    NotFound,
    ServerRefused,
    ServerRejected,
    ServerUnavailable,
    WrongState,
)
from control_plane.domain.keys import Principal
from control_plane.domain.names import database_name
from control_plane.domain.operations import Operation, Queue
from control_plane.domain.plans import PLANS
from control_plane.domain.preflight import Check, Profile, assess
from control_plane.services.enrolment import NewServer, probe_server
from control_plane.services.ports import Ports, Template
from control_plane.services.servers import (
    add_server,
    drain_server,
    get_server,
    list_servers,
    remove_server,
    undrain_server,
    watch_servers,
)
from control_plane.services.tenants import NewTenant, create_tenant
from tests.integration.tenant_server import postgres_fixture
from tests.integration.tenant_server.postgres_fixture import (
    ADMIN,
    HOST_NAME,
    VERSIONS,
    ScriptedServer,
    TenantServer,
    running_server,
)
from workers import enrol
from workers.engine.runner import Runner

CALLER = Caller(Principal(uuid4(), "olga", frozenset({"security_admin"})), "127.0.0.1")
TEMPLATE_DIR = REPOSITORY / "tenant_template"
# https://www.postgresql.org/docs/current/protocol-message-formats.html
ASKS_FOR_CLEARTEXT = b"R\0\0\0\x08\0\0\0\x03"
CANARY = Secret("canary-of-the-administrator")


class Bells:
    """A doorbell nobody hears: the tests advance operations themselves."""

    async def ring(self, operation_id: UUID, queue: Queue) -> None:
        """Do nothing, as Redis does when it is away."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[dict[int, TenantServer]]:
    """One server of each version; the first also holds the catalog."""
    with running_server(VERSIONS[0]) as oldest, running_server(VERSIONS[1]) as newest:
        yield {oldest.version: oldest, newest.version: newest}


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, fleet: dict[int, TenantServer]) -> TenantServer:
    return fleet[request.param]


@pytest.fixture
async def ports(fleet: dict[int, TenantServer], tmp_path: Path) -> AsyncIterator[Ports]:
    """A process's ports on an empty catalog."""
    host = fleet[VERSIONS[0]]
    name = f"catalog_{uuid4().hex}"
    admin = await host.admin()
    await admin.execute(f"CREATE DATABASE {name}")
    settings = Settings(
        home=tmp_path,
        catalog_dsn=f"postgresql://{ADMIN}@127.0.0.1:{host.port}/{name}?sslmode=disable",
        catalog_password=host.password,
        redis_url="redis://127.0.0.1:1/0",
        redis_password=None,
        keyring_file=tmp_path / "keys" / "root.keys",
        server_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        template_dir=TEMPLATE_DIR,
    )
    migrate(settings)
    Keyring.create(settings.keyring_file)
    template = Template(
        tenant_schema.template_fingerprint(TEMPLATE_DIR), tenant_schema.head_revision(TEMPLATE_DIR)
    )
    catalog = Catalog(settings)
    await catalog.open()
    yield Ports(settings, catalog, Keyring.load(settings.keyring_file), Bells(), template)
    await catalog.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def db(ports: Ports) -> AsyncIterator[Connection]:
    async with ports.catalog.connection() as connection:
        yield connection


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
    async with ports.catalog.connection() as db:
        return await operations.get(db, operation.id)


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
    assert (facts.superuser, facts.in_recovery, facts.encrypted) == (True, False, False)
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
        checks = assess(await server_probe.probe(weak.address()), Profile("disable", 100))
        remedies = [statement for check in checks for statement in _statements(check)]
        assert len(remedies) > len(faults)
        admin = await weak.admin()
        for statement in remedies:
            await admin.execute(statement)
        broken = await admin.fetch("SELECT name, error FROM pg_file_settings WHERE error IS NULL")
        assert {row["name"] for row in broken} >= {"wal_level", "autovacuum_naptime"}
        await admin.close()
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
    assert "helper lacks SUPERUSER, CREATEDB" in rejected.value.errors[0]["message"]


async def test_a_wrong_password_is_refused_and_nothing_is_left(
    ports: Ports, server: TenantServer
) -> None:
    with pytest.raises(ServerRefused, match="password authentication failed") as refused:
        await added(ports, request_for(server, password=CANARY))
    assert refused.value.message.startswith(f"{ADMIN} at 127.0.0.1:{server.port}: ")
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


async def test_enrolment_ends_with_a_server_that_takes_tenants(
    ports: Ports, db: Connection, server: TenantServer
) -> None:
    operation = await added(ports, request_for(server, region="local", labels={"rack": "1"}))
    recorded = await get_server(db, "pg-a")
    assert (recorded.state, recorded.placed, recorded.tls) == ("enrolling", 0, "disable")
    assert {check["level"] for check in recorded.preflight} == {"ok", "advice"}
    assert server.password.reveal().encode() not in recorded.sealed_password
    ended = await advanced(ports, operation)
    assert [(step.name, step.state) for step in ended.steps] == [
        ("bootstrap_server", "done"),
        ("build_template", "done"),
        ("activate_server", "done"),
    ]
    assert [s.state for s in await list_servers(db)] == ["active"]
    revision = await servers.template_revision(db, recorded.id, ports.template.fingerprint)
    assert revision == ports.template.revision
    event = (await audit.page(db, before=None, limit=1))[0]
    assert (event.actor, event.action, event.subject) == ("olga", "server.add", "pg-a")
    assert server.password.reveal() not in str(event)


async def test_running_it_again_on_a_server_in_use_changes_nothing(
    ports: Ports, db: Connection, server: TenantServer
) -> None:
    before = await enrolled(ports, request_for(server))
    again = await operations.insert(db, _enrolment(before))
    ended = await advanced(ports, again)
    assert (ended.state, ended.steps[1].detail) == (
        "succeeded",
        f"tpl_{ports.template.fingerprint} was there",
    )
    assert (await get_server(db, "pg-a")).state == "active"
    await drain_server(db, CALLER, "pg-a")
    ended = await advanced(ports, await operations.insert(db, _enrolment(before)))
    assert (ended.state, ended.steps[2].state) == ("succeeded", "skipped")
    assert (await get_server(db, "pg-a")).state == "draining"


def _enrolment(server: Server) -> operations.NewOperation:
    return operations.NewOperation(
        id=uuid4(), plan=PLANS["enrol"], subject=server.name, actor="olga", server_id=server.id
    )


async def test_the_same_server_or_name_twice_is_a_conflict_that_names_the_first(
    ports: Ports, fleet: dict[int, TenantServer]
) -> None:
    await enrolled(ports, request_for(fleet[15]))
    with pytest.raises(Conflict, match="is server pg-a, which is enrolled already"):
        await added(ports, request_for(fleet[15], "pg-z"))
    with pytest.raises(Conflict, match=r"there is a server pg-a \(active\); choose another name"):
        await added(ports, request_for(fleet[18], "pg-a"))


async def test_a_cancelled_enrolment_leaves_no_server_and_a_failed_one_can_be_retried(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    operation = await added(ports, request_for(fleet[18]))
    await operations.request_cancel(db, operation.id, PLANS["enrol"])
    assert (await advanced(ports, operation)).state == "cancelled"
    assert await list_servers(db) == []
    operation = await added(ports, request_for(fleet[18]))
    await db.execute("UPDATE servers SET system_identifier = 1 WHERE state = 'enrolling'")
    failed = await advanced(ports, operation)
    assert (failed.state, failed.error_code) == ("failed", "tenant_mismatch")
    with pytest.raises(Conflict, match="retry its enrolment"):
        await added(ports, request_for(fleet[18]))
    assert (await remove_server(db, CALLER, "pg-a")).removed
    assert await list_servers(db) == []


async def test_a_full_server_refuses_a_tenant_with_the_reason(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    await enrolled(ports, request_for(fleet[15], "pg-full", capacity=1))
    await _start_a_cell(db)
    async with ports.catalog.transaction() as request:
        await create_tenant(request, ports, CALLER, NewTenant("acme", "Acme"))
    with pytest.raises(NoCapacity, match=r"pg-full is full \(1 of 1\)"):
        async with ports.catalog.transaction() as request:
            await create_tenant(request, ports, CALLER, NewTenant("beta", "Beta"))
    with pytest.raises(Conflict, match="still holds 1 tenant; move"):
        async with ports.catalog.transaction() as request:
            await remove_server(request, CALLER, "pg-full")
    assert (await get_server(db, "pg-full")).state == "active"


async def _start_a_cell(db: Connection) -> None:
    cell = await routes.ensure_cell(db, uuid4(), "cell-1")
    await poolers.register(db, poolers.Registration(uuid4(), "p1", cell.id, "127.0.0.1", 6432))


async def test_drain_keeps_placement_away_and_undrain_lets_it_back(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    operation = await added(ports, request_for(fleet[15]))
    with pytest.raises(WrongState, match="is enrolling"):
        await drain_server(db, CALLER, "pg-a")
    await advanced(ports, operation)
    await _start_a_cell(db)
    for _ in range(2):
        assert (await drain_server(db, CALLER, "pg-a")).state == "draining"
    with pytest.raises(NoCapacity, match="pg-a is draining"):
        await create_tenant(db, ports, CALLER, NewTenant("acme", "Acme"))
    assert (await undrain_server(db, CALLER, "pg-a")).state == "active"
    actions = [event.action for event in await audit.page(db, before=None, limit=3)]
    assert actions == ["server.undrain", "server.drain", "server.drain"]
    with pytest.raises(NotFound, match="no server 'pg-x'"):
        await drain_server(db, CALLER, "pg-x")


async def test_removal_drains_then_empties_the_pool_then_forgets_the_server(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    server = await enrolled(ports, request_for(fleet[15]))
    pooled = await _pool_database(ports, db, server)
    first = await remove_server(db, CALLER, "pg-a")
    assert (first.removed, first.server.state) == (False, "draining")
    assert first.waits_for == "1 database being dropped"
    assert [(o.kind, o.database_id, o.server_id) for o in first.reclaims] == [
        ("reclaim", pooled.id, server.id)
    ]
    second = await remove_server(db, CALLER, "pg-a")
    assert (second.removed, second.reclaims) == (False, ())
    await databases.forget(db, await databases.get(db, pooled.id))
    assert (await remove_server(db, CALLER, "pg-a")).removed
    assert await list_servers(db) == []
    assert (await enrolled(ports, request_for(fleet[15]))).id != server.id


async def _pool_database(ports: Ports, db: Connection, server: Server) -> Database:
    """A database of the pool as the catalog records it."""
    key = uuid4()
    await databases.insert_role_set(db, key)
    database = Database(
        id=key,
        role_set_id=key,
        tenant_id=None,
        server_id=server.id,
        name=database_name(key),
        template_fingerprint=ports.template.fingerprint,
        schema_revision=None,
        generation=1,
        purpose="preparing",
        created_at=server.created_at,
    )
    await databases.insert(db, database)
    await databases.record_schema(db, key, ports.template.revision)
    await databases.offer(db, key)
    return database


async def test_the_watch_tells_a_swapped_and_a_silent_server_and_audits_only_changes(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    server = await enrolled(ports, request_for(fleet[15]))
    async with ScriptedServer([]) as closed:
        silent = closed.port
    told = (
        (fleet[15].port, None),
        (fleet[18].port, "another server answers at this address"),
        (silent, "the server does not answer"),
        (fleet[15].port, None),
    )
    for port, words in told:
        await db.execute("UPDATE servers SET port = $2 WHERE id = $1", server.id, port)
        for _ in range(2):
            await watch_servers(ports)
        seen = await get_server(db, "pg-a")
        assert seen.reachable is (words is None)
        assert (seen.problem or "").startswith(words or "")
        assert seen.checked_at > server.checked_at
    events = await audit.page(db, before=None, limit=10)
    assert [e.action for e in events] == ["server.reachable", "server.unreachable", "server.add"]
    assert "another server answers" in str(events[1].facts["problem"])
