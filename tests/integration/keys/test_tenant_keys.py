"""A tenant's key: made once, rotated, moved, destroyed, and killed on each of these ways."""

import asyncio
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from control_plane.adapters import key_file
from control_plane.adapters.key_file import KeyFile
from control_plane.catalog import tenant_keys as catalog_keys
from control_plane.catalog import tenants
from control_plane.catalog.tenant_keys import TenantKey
from control_plane.domain.errors import KeyUnavailable, WrongState
from control_plane.services import tenant_keys
from control_plane.services.ports import Ports
from control_plane.services.tenant_keys import TenantKeyMaterial
from tests.integration.keys.conftest import CALLER, Installation
from tests.unit.dying_stores import DyingStore, Killed, LyingStore

MOMENTS = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


async def active(ports: Ports, tenant_id: UUID) -> TenantKeyMaterial:
    async with ports.catalog.transaction() as db:
        return await tenant_keys.active_key(db, ports, tenant_id)


async def rotated(ports: Ports, slug: str) -> int:
    async with ports.catalog.transaction() as db:
        return (await tenant_keys.rotate(db, ports, CALLER, slug)).version


async def destroyed(ports: Ports, tenant_id: UUID) -> int:
    async with ports.catalog.transaction() as db:
        return await tenant_keys.destroy(db, ports, tenant_id)


async def known(ports: Ports, tenant_id: UUID) -> list[TenantKey]:
    async with ports.catalog.connection() as db:
        return await catalog_keys.every(db, tenant_id)


async def states(ports: Ports, tenant_id: UUID) -> list[tuple[int, str]]:
    return [(key.version, key.state) for key in await known(ports, tenant_id)]


def place(installation: Installation, tenant_id: UUID, version: int) -> Path:
    return installation.store / "keystore" / tenant_id.hex / str(version)


async def test_first_requests_at_once_make_one_key(installation: Installation) -> None:
    tenant_id = await installation.tenant("acme")
    processes = [installation.process() for _ in range(8)]
    found = await asyncio.gather(*(active(ports, tenant_id) for ports in processes))
    assert {(key.version, key.key) for key in found} == {(1, found[0].key)}
    (row,) = await known(processes[0], tenant_id)
    assert (row.version, row.state, row.sealed) == (1, "active", None)


async def test_it_opens_in_every_process_and_outside_of_a_transaction(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    async with ports.catalog.connection() as db:
        made = await tenant_keys.active_key(db, ports, tenant_id)
    assert await active(installation.process(), tenant_id) == made
    assert await tenant_keys.key_version(installation.process(), tenant_id, 1) == made.key
    assert str(made.key) not in repr(made)


async def test_tenants_have_keys_of_their_own(installation: Installation) -> None:
    ports = installation.process()
    own, other = await installation.tenant("own"), await installation.tenant("other")
    assert (await active(ports, own)).key != (await active(ports, other)).key
    place(installation, own, 1).write_bytes(place(installation, other, 1).read_bytes())
    with pytest.raises(KeyUnavailable):
        await active(installation.process(), own)


async def test_after_a_rotation_new_data_has_a_new_key_and_old_data_its_own(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    first = await active(ports, tenant_id)
    assert await rotated(ports, "acme") == 2
    second = await active(ports, tenant_id)
    assert (second.version, second.key != first.key) == (2, True)
    assert await tenant_keys.key_version(installation.process(), tenant_id, 1) == first.key
    async with ports.catalog.connection() as db:
        every = await tenant_keys.every_key(db, ports, tenant_id)
        event = await db.fetchrow(
            "SELECT actor, subject, facts FROM audit_events WHERE action = 'tenant_key.rotate'"
        )
    assert [(key.version, key.state) for key in every] == [(1, "retired"), (2, "active")]
    assert event is not None
    assert tuple(event) == ("keeper", "acme", {"version": 2})


async def test_rotations_at_once_make_as_many_versions(installation: Installation) -> None:
    tenant_id = await installation.tenant("acme")
    processes = [installation.process() for _ in range(4)]
    versions = await asyncio.gather(*(rotated(ports, "acme") for ports in processes))
    assert sorted(versions) == [1, 2, 3, 4]
    assert (await active(processes[0], tenant_id)).version == 4


async def test_a_tenant_that_is_going_has_no_key_rotated(installation: Installation) -> None:
    tenant_id = await installation.tenant("acme")
    async with installation.catalog.transaction() as db:
        await db.execute(
            """UPDATE tenants SET state = 'deleting', deleting_from = 'active',
                      delete_after = now() WHERE id = $1""",
            tenant_id,
        )
    with pytest.raises(WrongState):
        await rotated(installation.process(), "acme")


@MOMENTS
async def test_the_first_key_survives_a_death_on_the_way(
    installation: Installation, *, after: bool
) -> None:
    tenant_id = await installation.tenant("acme")
    dying = installation.process(DyingStore(installation.store, lives=0, after=after))
    with pytest.raises(Killed):
        await active(dying, tenant_id)
    found = await active(installation.process(), tenant_id)
    assert await states(dying, tenant_id) == [(1, "next"), (2, "active")]
    assert await active(installation.process(), tenant_id) == found


@MOMENTS
async def test_a_rotation_survives_a_death_on_the_way(
    installation: Installation, *, after: bool
) -> None:
    tenant_id = await installation.tenant("acme")
    first = await active(installation.process(), tenant_id)
    dying = installation.process(DyingStore(installation.store, lives=0, after=after))
    with pytest.raises(Killed):
        await rotated(dying, "acme")
    assert await active(installation.process(), tenant_id) == first
    assert await rotated(installation.process(), "acme") == 3
    assert await states(dying, tenant_id) == [(1, "retired"), (2, "next"), (3, "active")]
    assert await tenant_keys.key_version(installation.process(), tenant_id, 1) == first.key


async def test_a_rotation_that_is_not_committed_has_not_happened(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    first = await active(ports, tenant_id)

    async def rotate_and_die() -> None:
        async with ports.catalog.transaction() as db:
            await tenant_keys.rotate(db, ports, CALLER, "acme")
            raise Killed

    with pytest.raises(Killed):
        await rotate_and_die()
    assert await active(installation.process(), tenant_id) == first
    assert await rotated(ports, "acme") == 3


async def test_the_late_write_of_a_dead_attempt_overwrites_nothing(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    dead, living = installation.process(), installation.process()
    async with dead.catalog.connection() as db:
        late = await catalog_keys.reserve(db, tenant_id)
    found = await active(living, tenant_id)
    assert dead.keystore is not None
    dead.keystore.create(tenant_id, late)
    assert await active(installation.process(), tenant_id) == found
    assert await tenant_keys.key_version(living, tenant_id, found.version) == found.key


async def test_a_catalog_that_lags_behind_the_keystore_reuses_no_number(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    await active(ports, tenant_id)
    await rotated(ports, "acme")
    second = await active(ports, tenant_id)
    async with ports.catalog.transaction() as db:
        await db.execute("DELETE FROM tenant_keys WHERE version = 2")
        await db.execute("UPDATE tenant_keys SET state = 'active'")
    assert await rotated(installation.process(), "acme") == 3
    assert await tenant_keys.key_version(installation.process(), tenant_id, 2) == second.key


async def test_a_store_that_lies_gives_no_key(installation: Installation) -> None:
    tenant_id = await installation.tenant("acme")
    with pytest.raises(KeyUnavailable, match="does not come back"):
        await active(installation.process(LyingStore(installation.store, "/1")), tenant_id)
    assert (await active(installation.process(), tenant_id)).version == 2


async def test_without_a_keystore_keys_are_sealed_in_the_catalog(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    ports = installation.process_without_keystore()
    first = await active(ports, tenant_id)
    assert await rotated(ports, "acme") == 2
    assert await tenant_keys.key_version(ports, tenant_id, 1) == first.key
    assert all(key.sealed for key in await known(ports, tenant_id))
    assert await destroyed(ports, tenant_id) == 2
    with pytest.raises(KeyUnavailable):
        await tenant_keys.key_version(ports, tenant_id, 1)


async def test_keys_move_to_the_keystore_at_their_next_use(installation: Installation) -> None:
    tenant_id = await installation.tenant("acme")
    before = installation.process_without_keystore()
    first = await active(before, tenant_id)
    await rotated(before, "acme")
    second = await active(before, tenant_id)
    assert await active(installation.process(), tenant_id) == second
    assert [bool(key.sealed) for key in await known(before, tenant_id)] == [True, False]
    assert await tenant_keys.key_version(installation.process(), tenant_id, 1) == first.key
    assert not any(key.sealed for key in await known(before, tenant_id))
    assert await tenant_keys.key_version(installation.process(), tenant_id, 1) == first.key
    with pytest.raises(KeyUnavailable, match="set TENANTRY_KEYSTORE"):
        await active(before, tenant_id)


@MOMENTS
async def test_a_move_survives_a_death_on_the_way(
    installation: Installation, *, after: bool
) -> None:
    tenant_id = await installation.tenant("acme")
    first = await active(installation.process_without_keystore(), tenant_id)
    dying = installation.process(DyingStore(installation.store, lives=0, after=after))
    with pytest.raises(Killed):
        await active(dying, tenant_id)
    assert await active(installation.process_without_keystore(), tenant_id) == first
    assert await active(installation.process(), tenant_id) == first
    assert (await known(dying, tenant_id))[0].sealed is None


async def test_a_key_leaves_the_catalog_only_when_the_keystore_has_it(
    installation: Installation,
) -> None:
    tenant_id = await installation.tenant("acme")
    first = await active(installation.process_without_keystore(), tenant_id)
    with pytest.raises(KeyUnavailable, match="does not come back"):
        await active(installation.process(LyingStore(installation.store, "/1")), tenant_id)
    assert await active(installation.process_without_keystore(), tenant_id) == first


async def test_a_destroyed_key_opens_nothing_and_is_not_made_again(
    installation: Installation,
) -> None:
    tenant_id, other = await installation.tenant("acme"), await installation.tenant("other")
    ports = installation.process()
    await active(ports, tenant_id)
    await rotated(ports, "acme")
    neighbour = await active(ports, other)
    assert await destroyed(ports, tenant_id) == 2
    assert await destroyed(ports, tenant_id) == 0
    assert await states(ports, tenant_id) == [(1, "destroyed"), (2, "destroyed")]
    for process in (ports, installation.process()):
        with pytest.raises(KeyUnavailable):
            await active(process, tenant_id)
        with pytest.raises(KeyUnavailable):
            await rotated(process, "acme")
        for version in (1, 2):
            with pytest.raises(KeyUnavailable):
                await tenant_keys.key_version(process, tenant_id, version)
    assert await active(installation.process(), other) == neighbour


@MOMENTS
async def test_destroying_survives_a_death_on_the_way(
    installation: Installation, *, after: bool
) -> None:
    tenant_id = await installation.tenant("acme")
    await active(installation.process(), tenant_id)
    with pytest.raises(Killed):
        await destroyed(
            installation.process(DyingStore(installation.store, lives=0, after=after)), tenant_id
        )
    await destroyed(installation.process(), tenant_id)
    assert await states(installation.process(), tenant_id) == [(1, "destroyed")]
    assert not place(installation, tenant_id, 1).exists()


async def test_a_copy_of_the_keystore_opens_nothing_once_its_root_is_gone(
    installation: Installation, tmp_path: Path
) -> None:
    """S-45: what destroys the copies that nobody can reach."""
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    await active(ports, tenant_id)
    copy = tmp_path / "copy"
    shutil.copytree(installation.store, copy)
    await destroyed(ports, tenant_id)
    shutil.copytree(copy, installation.store, dirs_exist_ok=True)
    assert await tenant_keys.key_version(installation.process(), tenant_id, 1)
    path = installation.settings.keyring_file
    key_file.change(path, KeyFile.with_new_epoch)
    key_file.change(path, lambda now: now.without(1))
    for process in (installation.process(), ports):
        with pytest.raises(KeyUnavailable):
            await tenant_keys.key_version(process, tenant_id, 1)


async def test_an_unknown_tenant_has_no_key(installation: Installation) -> None:
    async with installation.catalog.connection() as db:
        assert await tenants.slug_is_taken(db, "nobody") is False
    with pytest.raises(KeyUnavailable, match="there is no version 1"):
        await tenant_keys.key_version(installation.process(), UUID(int=9), 1)
