"""A server of RDS from the request to the fleet and away: moto keeps the instance, and a real
Postgres answers at its address."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from moto import mock_aws
from moto.rds.models import DBInstance

from control_plane.adapters.providers import rds as module
from control_plane.adapters.providers.rds import SERVER_TAG, RdsProvider
from control_plane.catalog import operations, provided_servers, servers
from control_plane.config import RdsSettings
from control_plane.domain.names import database_name, decode
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.providers import ServerWish, instance_name
from control_plane.services import providing
from control_plane.services.ports import Ports
from control_plane.services.providing import NewProvidedServer
from tests.fakes.moto_rds import REGION, Refusals, moto_instance
from tests.integration.servers.requests import CALLER
from tests.integration.tenant_server.postgres_fixture import VERSIONS, TenantServer
from workers import create_server, delete_server, enrol
from workers.engine.runner import Runner
from workers.engine.step import Verb

VERBS: dict[str, Verb] = {
    verb.plan.kind: verb for verb in (create_server.VERB, delete_server.VERB, enrol.VERB)
}
NAME = "pg-rds"


@dataclass
class Stage:
    """An empty catalog whose provider is moto's RDS, and a worker that is told when to look."""

    ports: Ports
    rds: RdsProvider
    runner: Runner

    async def request(self) -> tuple[Operation, UUID]:
        wanted = NewProvidedServer(NAME, "rds", ServerWish(storage_gb=50, capacity=20))
        async with self.ports.catalog.transaction() as db:
            operation = await providing.create_server(db, self.ports, CALLER, wanted)
        return operation, providing.key_of(operation)

    async def delete(self, *, lost: bool = False) -> Operation:
        async with self.ports.catalog.transaction() as db:
            return await providing.delete_server(db, CALLER, NAME, lost=lost)

    async def look(self, operation: Operation) -> Operation:
        """The operation after a worker's look at it, which is due at once."""
        async with self.ports.catalog.connection() as db:
            await db.execute("UPDATE operations SET due_at = now() WHERE id = $1", operation.id)
        await self.runner.advance(operation.id)
        async with self.ports.catalog.connection() as db:
            return await operations.get(db, operation.id)

    async def end(self, operation: Operation) -> Operation:
        while operation.live:
            operation = await self.look(operation)
        return operation

    def only_instance(self) -> dict[str, Any]:
        (found,) = self.rds.client.describe_db_instances()["DBInstances"]
        return dict(found)


@pytest.fixture
def server(fleet: dict[int, TenantServer]) -> TenantServer:
    """One version is enough here: enrolment is tried with each where it is tested."""
    return fleet[VERSIONS[-1]]


@pytest.fixture
async def stage(
    ports: Ports, server: TenantServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Instances begin as they do at AWS, in the state ``creating``; their address is ``server``."""

    def begin(parsed: dict[str, Any], **_: Any) -> None:
        if "DBInstance" in parsed:
            tags = {tag["Key"]: tag["Value"] for tag in parsed["DBInstance"]["TagList"]}
            instance = moto_instance(decode(tags[SERVER_TAG]))
            instance.status, instance.port = "creating", server.port

    # The server's own administrator keeps its password for the other tests.
    monkeypatch.setattr(module, "ADMIN", f"master_{uuid4().hex}")
    monkeypatch.setattr(DBInstance, "address", property(lambda _: "127.0.0.1"))
    endpoint = f"https://rds.{REGION}.amazonaws.com"
    with mock_aws():
        rds = RdsProvider(RdsSettings(region=REGION, endpoint=endpoint), "here")
        rds.client.meta.events.register("after-call.rds.CreateDBInstance", begin)
        given = msgspec.structs.replace(ports, providers={"rds": rds})
        runner = Runner(given, VERBS)
        yield Stage(given, rds, runner)
    await runner._sessions.close()


async def let_in(stage: Stage, server: TenantServer, key: UUID) -> None:
    """What RDS does with the password it was given, and Amazon's does not: a superuser."""
    async with stage.ports.catalog.connection() as db:
        made = await provided_servers.get(db, key)
    password = providing.password_of(stage.ports, made).reveal()
    admin = await server.admin()
    await admin.execute(f"CREATE ROLE {module.ADMIN} LOGIN SUPERUSER PASSWORD '{password}'")
    await admin.close()


async def enrolled(stage: Stage, server: TenantServer) -> UUID:
    """A server that RDS made and that is in the fleet."""
    operation, key = await stage.request()
    operation = await stage.look(operation)
    await let_in(stage, server, key)
    moto_instance(key).status = "available"
    operation = await stage.look(operation)
    async with stage.ports.catalog.connection() as db:
        enrolment = await operations.newest_of_server(db, key, "enrol")
    assert enrolment is not None
    assert (await stage.end(enrolment)).state == "succeeded"
    assert (await stage.end(operation)).state == "succeeded"
    return key


async def test_from_the_request_to_the_fleet_and_away(stage: Stage, server: TenantServer) -> None:
    operation, key = await stage.request()
    operation = await stage.look(operation)
    assert (operation.state, operation.steps[1].detail) == (
        "waiting",
        f"{instance_name(key)}: status creating",
    )
    await let_in(stage, server, key)
    moto_instance(key).status = "available"
    operation = await stage.look(operation)
    assert [step.state for step in operation.steps] == ["done", "done", "done", "running"]
    async with stage.ports.catalog.connection() as db:
        enrolment = await operations.newest_of_server(db, key, "enrol")
    assert enrolment is not None
    assert (await stage.end(enrolment)).state == "succeeded"
    assert (await stage.end(operation)).state == "succeeded"
    async with stage.ports.catalog.connection() as db:
        enrolled = await servers.get(db, key)
        made = await provided_servers.get(db, key)
    assert (enrolled.state, enrolled.admin_login, enrolled.labels) == (
        "active",
        module.ADMIN,
        {"storage_gb": "50"},
    )
    assert (made.state, made.sealed_password) == ("ready", None)

    assert (await stage.end(await stage.delete())).state == "succeeded"
    assert stage.rds.client.describe_db_instances()["DBInstances"] == []
    (last,) = stage.rds.client.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    assert last["DBSnapshotIdentifier"].startswith(f"{instance_name(key)}-final-")
    async with stage.ports.catalog.connection() as db:
        assert (await servers.get(db, key)).state == "removed"
        assert await provided_servers.every(db) == []


async def test_a_server_with_a_database_that_nobody_knows_is_not_deleted(
    stage: Stage, server: TenantServer
) -> None:
    """The catalog may have forgotten whose it is."""
    key = await enrolled(stage, server)
    name = database_name(uuid4())
    admin = await server.admin()
    await admin.execute(f'CREATE DATABASE "{name}"')
    refused = await stage.end(await stage.delete())
    assert (refused.state, refused.error_code) == ("failed", "tenant_mismatch")
    assert name in str(refused.error_message)
    assert stage.only_instance()["DBInstanceStatus"] == "available"
    async with stage.ports.catalog.connection() as db:
        assert (await servers.get(db, key)).state == "draining"
    await admin.execute(f'DROP DATABASE "{name}"')
    await admin.close()
    async with stage.ports.catalog.transaction() as db:
        again = await operations.request_retry(db, refused, PLANS["delete_server"])
    assert (await stage.end(again)).state == "succeeded"
    assert stage.rds.client.describe_db_instances()["DBInstances"] == []


async def test_a_server_that_does_not_answer_is_deleted_on_a_word(
    stage: Stage, server: TenantServer
) -> None:
    key = await enrolled(stage, server)
    async with stage.ports.catalog.connection() as db:
        await db.execute("UPDATE servers SET port = 1 WHERE id = $1", key)
    refused = await stage.end(await stage.delete())
    assert (refused.state, refused.error_code) == ("failed", "server_unsuitable")
    assert f"tenantry servers delete {NAME} --lost" in str(refused.error_message)
    assert stage.only_instance()["DBInstanceStatus"] == "available"
    assert (await stage.end(await stage.delete(lost=True))).state == "succeeded"
    assert stage.rds.client.describe_db_instances()["DBInstances"] == []


async def test_a_worker_that_died_after_asking_leads_to_no_second_instance(stage: Stage) -> None:
    operation, _ = await stage.request()
    operation = await stage.look(operation)
    async with stage.ports.catalog.connection() as db:
        await db.execute(
            "UPDATE steps SET state = 'running', finished_at = NULL WHERE operation_id = $1"
            " AND position = 0",
            operation.id,
        )
    operation = await stage.look(operation)
    assert [step.state for step in operation.steps[:2]] == ["done", "running"]
    assert stage.only_instance()["DBInstanceStatus"] == "creating"


async def test_an_instance_that_fails_ends_it_and_can_be_deleted(stage: Stage) -> None:
    operation, key = await stage.request()
    operation = await stage.look(operation)
    moto_instance(key).status = "incompatible-network"
    operation = await stage.look(operation)
    assert (operation.state, operation.error_code) == ("failed", "provider_refused")
    assert operation.error_message is not None
    assert "status incompatible-network" in operation.error_message
    assert f"tenantry servers delete {NAME}" in operation.error_message
    assert (await stage.end(await stage.delete())).state == "succeeded"
    assert stage.rds.client.describe_db_instances()["DBInstances"] == []


async def test_a_quota_ends_it_and_a_retry_goes_on(stage: Stage) -> None:
    Refusals(stage.rds, "CreateDBInstance", 400, "InstanceQuotaExceeded", 1)
    operation, _ = await stage.request()
    operation = await stage.look(operation)
    assert (operation.state, operation.error_code) == ("failed", "provider_refused")
    async with stage.ports.catalog.transaction() as db:
        operation = await operations.request_retry(db, operation, PLANS["create_server"])
    operation = await stage.look(operation)
    assert [step.state for step in operation.steps[:2]] == ["done", "running"]


async def test_no_room_is_tried_again_by_itself(stage: Stage) -> None:
    Refusals(stage.rds, "CreateDBInstance", 400, "InsufficientDBInstanceCapacity", 1)
    operation, _ = await stage.request()
    operation = await stage.look(operation)
    assert operation.state == "waiting"
    assert operation.steps[0].error_code == "provider_unavailable"
    operation = await stage.look(operation)
    assert [step.state for step in operation.steps[:2]] == ["done", "running"]
