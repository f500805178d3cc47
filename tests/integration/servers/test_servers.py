"""A server's life: enrolled, full, drained, watched, removed."""

import asyncio
from uuid import uuid4

import pytest

from control_plane.catalog import audit, databases, operations, poolers, routes, servers
from control_plane.catalog.databases import Database
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.config import DEFAULT_TEMPLATE, Secret
from control_plane.domain.errors import Conflict, NoCapacity, NotFound, WrongState
from control_plane.domain.names import database_name
from control_plane.domain.plans import PLANS
from control_plane.services.placing import NewTenant
from control_plane.services.ports import Ports
from control_plane.services.servers import (
    Removal,
    drain_server,
    get_server,
    list_servers,
    remove_server,
    undrain_server,
    watch_servers,
)
from control_plane.services.tenants import create_tenant
from tests.integration.servers.requests import CALLER, added, advanced, enrolled, request_for
from tests.integration.tenant_server.postgres_fixture import ScriptedServer, TenantServer


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
    template = ports.templates.current(DEFAULT_TEMPLATE)
    revision = await servers.template_revision(db, recorded.id, template.fingerprint)
    assert revision == template.revision
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
        f"tpl_{ports.templates.current(DEFAULT_TEMPLATE).fingerprint} was there",
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


async def test_a_database_that_is_being_claimed_is_never_condemned_by_a_removal(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    server = await enrolled(ports, request_for(fleet[15]))
    await _start_a_cell(db)
    pooled = await _pool_database(ports, db, server)
    async with ports.catalog.transaction() as request:
        operation = await create_tenant(request, ports, CALLER, NewTenant("acme", "Acme"))
        removal = asyncio.create_task(_removed_in_its_own_transaction(ports))
        done, _ = await asyncio.wait({removal}, timeout=0.3)
        assert not done
    with pytest.raises(Conflict, match="still holds 1 tenant"):
        await removal
    kept = await databases.get(db, pooled.id)
    assert (kept.purpose, kept.tenant_id) == ("primary", operation.tenant_id)


async def _removed_in_its_own_transaction(ports: Ports) -> Removal:
    async with ports.catalog.transaction() as request:
        return await remove_server(request, CALLER, "pg-a")


async def _pool_database(ports: Ports, db: Connection, server: Server) -> Database:
    """A database of the pool as the catalog records it."""
    key = uuid4()
    template = ports.templates.current(DEFAULT_TEMPLATE)
    await databases.insert_role_set(db, key)
    database = Database(
        id=key,
        role_set_id=key,
        tenant_id=None,
        server_id=server.id,
        name=database_name(key),
        template=template.name,
        template_fingerprint=template.fingerprint,
        schema_revision=None,
        generation=1,
        purpose="preparing",
        created_at=server.created_at,
    )
    await databases.insert(db, database)
    await databases.record_schema(db, key, template.revision)
    await databases.offer(db, key)
    return database


async def test_the_watch_tells_a_swapped_and_a_silent_server_and_audits_only_changes(
    ports: Ports, db: Connection, fleet: dict[int, TenantServer]
) -> None:
    password = Secret("the-same-on-both-servers")
    for each in fleet.values():
        await _execute(each, f"CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{password.reveal()}'")
    server = await enrolled(ports, request_for(fleet[15], user="keeper", password=password))
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
    for each in fleet.values():
        await _execute(each, "DROP ROLE keeper")


async def _execute(server: TenantServer, statement: str) -> None:
    admin = await server.admin()
    await admin.execute(statement)
    await admin.close()
