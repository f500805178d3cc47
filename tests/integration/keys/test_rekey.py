"""A new root key: everything is put under it, nothing is lost on the way, the old one can go."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import msgspec
import pytest

from control_plane.adapters import clock, key_file
from control_plane.adapters.aws_kms import AwsKms
from control_plane.adapters.key_file import KeyFile
from control_plane.adapters.keystore import KeyName, Keystore
from control_plane.adapters.kms import LocalKms
from control_plane.adapters.object_stores.files import FileStore
from control_plane.catalog import databases, operations, sealed, servers
from control_plane.catalog.servers import Server
from control_plane.domain.errors import (
    KeyServiceUnavailable,
    KeyUnavailable,
    OperationInProgress,
)
from control_plane.domain.operations import Operation
from control_plane.router.credentials import new_credential, open_credential
from control_plane.services import root_keys, tenant_keys
from control_plane.services.addresses import seal_admin_password, server_address
from control_plane.services.ports import Ports
from control_plane.services.signing import signer
from tests.integration.keys.conftest import CALLER, Installation
from tests.unit.dying_stores import StallingStore
from tests.unit.fake_kms import ARN, FakeKms, fake_kms
from workers import rekey
from workers.engine.runner import Runner

PASSWORD = "of the administrator"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKms]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with fake_kms() as running:
        yield running


def with_service(installation: Installation, service: FakeKms) -> Ports:
    """A process whose tenant keys hang from a key service."""
    ports = installation.process()
    aws = AwsKms([ARN], region="eu-west-1", endpoint=service.url)
    store = FileStore(installation.store)
    keystore = Keystore(store, aws, also=(LocalKms(ports.keyring),))
    return msgspec.structs.replace(ports, keystore=keystore)


async def furnish(installation: Installation) -> tuple[UUID, UUID]:
    """A tenant with two versions of its key, and a server: something of every kind is sealed."""
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    async with ports.catalog.transaction() as db:
        await tenant_keys.active_key(db, ports, tenant_id)
        await tenant_keys.rotate(db, ports, CALLER, "acme")
        await signer(db, ports.keyring)
        server = a_server(ports)
        await servers.insert(db, server)
    other = await installation.tenant("sealed-in-the-catalog")
    plain = installation.process_without_keystore()
    async with plain.catalog.transaction() as db:
        await tenant_keys.active_key(db, plain, other)
    return tenant_id, server.id


def a_server(ports: Ports) -> Server:
    server_id = clock.new_id()
    return Server(
        id=server_id,
        name="pg-a",
        host="127.0.0.1",
        hostaddr="127.0.0.1",
        port=5432,
        admin_login="admin",
        sealed_password=seal_admin_password(ports.keyring, server_id, PASSWORD),
        tls="disable",
        ca_pem=None,
        system_identifier=1,
        version_num=150020,
        region=None,
        tier=None,
        labels={},
        capacity=10,
        placed=0,
        state="enrolling",
        preflight=[],
        reachable=True,
        checked_at=clock.now(),
        problem=None,
        created_at=clock.now(),
    )


async def begun(ports: Ports) -> Operation:
    async with ports.catalog.transaction() as db:
        return await root_keys.start_rekey(db, CALLER)


async def advanced(ports: Ports, operation: Operation) -> Operation:
    """The operation after one turn of a worker."""
    await Runner(ports, {"rekey": rekey.VERB}).advance(operation.id)
    async with ports.catalog.connection() as db:
        return await operations.get(db, operation.id)


async def ended(ports: Ports, operation: Operation) -> Operation:
    """The operation after as many turns as it takes."""
    async with asyncio.timeout(30):
        while operation.live:
            operation = await advanced(ports, operation)
            await asyncio.sleep(0.05)
    return operation


async def found(ports: Ports) -> root_keys.Needs:
    async with ports.catalog.connection() as db:
        return await root_keys.needs(db, ports)


def add_epoch(installation: Installation) -> None:
    key_file.change(installation.settings.keyring_file, KeyFile.with_new_epoch)


async def test_everything_opens_without_the_old_root_key(installation: Installation) -> None:
    tenant_id, server_id = await furnish(installation)
    ports = installation.process()
    before = [await tenant_keys.key_version(ports, tenant_id, version) for version in (1, 2)]
    password = await credential_of(ports, tenant_id)
    add_epoch(installation)
    assert (await found(ports)).of_epoch(1) == 7
    ended = await advanced(ports, await begun(ports))
    assert (ended.state, [step.state for step in ended.steps]) == ("succeeded", ["done"] * 3)
    assert [step.detail for step in ended.steps] == [
        "2 of 2 tenant keys wrapped anew",
        "5 secrets sealed anew",
        "2 tenant keys and 5 secrets need no older root key",
    ]
    assert (await found(ports)).of_epoch(1) == 0
    key_file.change(installation.settings.keyring_file, lambda now: now.without(1))
    fresh = installation.process()
    after = [await tenant_keys.key_version(fresh, tenant_id, version) for version in (1, 2)]
    assert after == before
    assert await credential_of(fresh, tenant_id) == password
    async with fresh.catalog.connection() as db:
        address = server_address(fresh.keyring, await servers.get(db, server_id))
        await signer(db, fresh.keyring)
        event = await db.fetchval(
            "SELECT facts FROM audit_events WHERE action = 'root_key.verified'"
        )
    assert address.password.reveal() == PASSWORD
    assert event == {"epoch": 2, "keys": 2, "secrets": 5}


async def credential_of(ports: Ports, tenant_id: UUID) -> str:
    async with ports.catalog.connection() as db:
        held = await databases.credential_in(db, tenant_id, "active")
    return open_credential(ports.keyring, held).reveal()


async def test_again_there_is_nothing_to_do(installation: Installation) -> None:
    await furnish(installation)
    ports = installation.process()
    ended = await advanced(ports, await begun(ports))
    assert [step.detail for step in ended.steps][:2] == [
        "0 of 2 tenant keys wrapped anew",
        "0 secrets sealed anew",
    ]
    assert (await advanced(ports, await begun(ports))).state == "succeeded"


async def test_without_a_keystore_the_catalog_is_put_under_the_new_key(
    installation: Installation,
) -> None:
    await furnish(installation)
    ports = installation.process_without_keystore()
    add_epoch(installation)
    ended = await advanced(ports, await begun(ports))
    assert [step.state for step in ended.steps] == ["skipped", "done", "done"]


async def test_two_at_once_are_refused(installation: Installation) -> None:
    ports = installation.process()
    first = await begun(ports)
    with pytest.raises(OperationInProgress, match="root key is busy: rekey op_"):
        await begun(ports)
    await advanced(ports, first)
    await begun(ports)


async def test_a_secret_that_is_changed_meanwhile_keeps_its_change(
    installation: Installation,
) -> None:
    tenant_id, _ = await furnish(installation)
    ports = installation.process()
    rotated = new_credential(ports.keyring, tenant_id, "a", version=2, state="active")
    add_epoch(installation)
    column = next(column for column in sealed.COLUMNS if column.table == "credentials")
    async with ports.catalog.connection() as db:
        read = await sealed.older(db, column, 2, 10)
        await databases.put_credential(db, rotated)
        own = [value.sealed for value in read if value.owner == tenant_id]
        await sealed.replace(db, column, [(known, b"too late") for known in own])
        kept = (await databases.credentials(db, tenant_id))["a"]
    assert (len(own), kept.sealed) == (1, rotated.sealed)
    assert (await advanced(ports, await begun(ports))).state == "succeeded"
    assert await credential_of(ports, tenant_id) == open_credential(ports.keyring, rotated).reveal()


async def test_what_comes_late_is_done_as_well(installation: Installation) -> None:
    """A process that had not read the new key file seals once more under the old key."""
    tenant_id, _ = await furnish(installation)
    ports = installation.process()
    stale = installation.process().keyring
    late = new_credential(stale, tenant_id, "b", version=2, state="next")
    add_epoch(installation)
    operation = await begun(ports)
    async with ports.catalog.connection() as db:
        await databases.put_credential(db, late)
        await db.execute(
            """UPDATE steps SET state = 'done', finished_at = clock_timestamp()
               WHERE operation_id = $1 AND position < 2""",
            operation.id,
        )
    waiting = await advanced(ports, operation)
    assert (waiting.state, waiting.steps[2].state) == ("waiting", "running")
    assert "came late" in (waiting.steps[2].detail or "")
    assert (await found(ports)).of_epoch(1) == 0


async def test_a_key_that_is_destroyed_meanwhile_stays_destroyed(
    installation: Installation,
) -> None:
    """The worker has read the old object and has not yet written the new one."""
    tenant_id, _ = await furnish(installation)
    add_epoch(installation)
    store = StallingStore(installation.store, ending="/1")
    ports, other = installation.process(store), installation.process()
    turn = asyncio.create_task(advanced(ports, await begun(ports)))
    assert await asyncio.to_thread(store.reached.wait, 60)
    shredding = asyncio.create_task(destroyed(other, tenant_id))
    await until_somebody_waits_for_a_lock(other)
    assert not shredding.done()
    store.go_on.set()
    assert await shredding == 2
    assert (await turn).state == "succeeded"
    assert [file for file in (installation.store / "keystore").rglob("*") if file.is_file()] == []


async def destroyed(ports: Ports, tenant_id: UUID) -> int:
    async with ports.catalog.transaction() as db:
        return await tenant_keys.destroy(db, ports, tenant_id)


async def until_somebody_waits_for_a_lock(ports: Ports) -> None:
    async with ports.catalog.connection() as db:
        for _ in range(500):
            if await db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                return
            await asyncio.sleep(0.02)
    raise AssertionError("nobody waits for a lock")


async def test_a_key_that_does_not_open_is_named_and_ends_the_operation(
    installation: Installation,
) -> None:
    tenant_id, _ = await furnish(installation)
    ports = installation.process()
    add_epoch(installation)
    broken = installation.store / "keystore" / tenant_id.hex / "1"
    good = broken.read_bytes()
    broken.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    failed = await advanced(ports, await begun(ports))
    assert (failed.state, failed.error_code) == ("failed", "key_unavailable")
    broken.write_bytes(good)
    assert (await advanced(ports, await begun(ports))).state == "succeeded"


@pytest.mark.parametrize(
    "refusal",
    [(503, "ServiceUnavailable"), (400, "AccessDeniedException"), (400, "DisabledException")],
)
async def test_a_key_service_that_is_away_is_waited_for(
    installation: Installation, service: FakeKms, refusal: tuple[int, str]
) -> None:
    """F-23: operations go on by themselves; who connects to a tenant notices nothing."""
    tenant_id, _ = await furnish(installation)
    ports = with_service(installation, service)
    service.refusal = refusal
    operation = await begun(ports)
    held_up = await advanced(ports, operation)
    assert (held_up.state, held_up.steps[0].error_code) == ("waiting", "key_unavailable")
    assert await credential_of(ports, tenant_id)
    service.refusal = None
    assert (await advanced(ports, operation)).state == "succeeded"
    assert (await found(ports)).keys == {ARN: 2}
    service.refusal = refusal
    async with ports.catalog.connection() as db:
        fresh = with_service(installation, service)
        with pytest.raises(KeyServiceUnavailable):
            await tenant_keys.every_key(db, fresh, tenant_id)
        service.refusal = None
        assert len(await tenant_keys.every_key(db, fresh, tenant_id)) == 2


async def test_a_wrong_root_key_is_not_waited_for(installation: Installation) -> None:
    tenant_id, _ = await furnish(installation)
    path = installation.settings.keyring_file
    path.unlink()
    key_file.create(path, key_file.new().with_new_epoch())
    ports = installation.process()
    with pytest.raises(KeyUnavailable):
        await tenant_keys.key_version(ports, tenant_id, 1)
    failed = await advanced(ports, await begun(ports))
    assert (failed.state, failed.error_code) == ("failed", "key_unavailable")


async def test_every_sealed_column_of_the_catalog_is_known(installation: Installation) -> None:
    async with installation.catalog.connection() as db:
        rows = await db.fetch(
            """SELECT table_name, column_name FROM information_schema.columns
               WHERE table_schema = 'public' AND data_type = 'bytea' AND column_name ~ 'sealed'"""
        )
    real = sorted((row["table_name"], row["column_name"]) for row in rows)
    assert real == sorted((column.table, column.column) for column in sealed.COLUMNS)


async def test_wrapping_anew_leaves_nothing_behind(installation: Installation) -> None:
    tenant_id, _ = await furnish(installation)
    ports = installation.process()
    add_epoch(installation)
    await advanced(ports, await begun(ports))
    names = [file.name for file in (installation.store / "keystore" / tenant_id.hex).iterdir()]
    assert sorted(names) == ["1", "2"]
    assert ports.keystore is not None
    assert sorted(ports.keystore.every()) == [KeyName(tenant_id.hex, n) for n in (1, 2)]
