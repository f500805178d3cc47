"""``tenantry admin keys`` where it asks the catalog: what needs a root key, and may it go."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from control_plane.adapters import key_file
from control_plane.domain.names import parse
from control_plane.services import tenant_keys
from tests.integration.keys.conftest import Installation
from tests.integration.keys.test_rekey import begun, ended, furnish


async def admin_keys(
    installation: Installation, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return await admin(installation, "keys", *arguments)


async def admin(installation: Installation, *arguments: str) -> "subprocess.CompletedProcess[str]":
    settings = installation.settings
    password = settings.home / "catalog.password"
    assert settings.catalog_password is not None
    password.write_text(settings.catalog_password.reveal())
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    environment = {
        "TENANTRY_HOME": str(settings.home),
        "TENANTRY_CATALOG_DSN": settings.catalog_dsn,
        "TENANTRY_CATALOG_PASSWORD_FILE": str(password),
        "TENANTRY_REDIS_URL": settings.redis_url,
        "TENANTRY_KEYSTORE": f"file://{installation.store}",
        "TENANTRY_BACKUP_STORE": f"file://{installation.backups}",
    }
    command = [str(Path(sys.executable).with_name("tenantry")), "admin", *arguments]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=kept | environment,
    )


async def test_a_root_key_goes_when_nothing_needs_it(installation: Installation) -> None:
    tenant_id, _ = await furnish(installation)
    ports = installation.process()
    path = installation.settings.keyring_file
    active = await admin_keys(installation, "retire-epoch", "1")
    assert (active.returncode, "is the active one" in active.stderr) == (1, True)
    assert (await admin_keys(installation, "new-epoch")).returncode == 0
    unknown = await admin_keys(installation, "retire-epoch", "7")
    assert (unknown.returncode, "there is no epoch 7" in unknown.stderr) == (1, True)
    needed = await admin_keys(installation, "retire-epoch", "1")
    assert (needed.returncode, "7 keys and secrets need epoch 1" in needed.stderr) == (1, True)
    assert sorted(key_file.read(path).keys()) == [1, 2]

    assert (await ended(ports, await begun(ports))).state == "succeeded"
    retired = await admin_keys(installation, "retire-epoch", "1")
    assert (retired.returncode, retired.stderr) == (0, "")
    assert sorted(key_file.read(path).keys()) == [2]
    assert await tenant_keys.key_version(ports, tenant_id, 1)
    again = await admin_keys(installation, "retire-epoch", "1")
    assert (again.returncode, "there is no epoch 1" in again.stderr) == (1, True)


async def test_what_the_keystore_alone_needs_is_found(installation: Installation) -> None:
    """A catalog that is older than the keystore does not know of that key."""
    tenant_id = await installation.tenant("acme")
    ports = installation.process()
    async with ports.catalog.transaction() as db:
        await tenant_keys.active_key(db, ports, tenant_id)
        await db.execute("DELETE FROM tenant_keys")
        await db.execute("DELETE FROM credentials")
    await admin_keys(installation, "new-epoch")
    needed = await admin_keys(installation, "retire-epoch", "1")
    assert (needed.returncode, "1 keys and secrets need epoch 1" in needed.stderr) == (1, True)


async def test_a_root_key_stays_while_it_cannot_be_told_who_needs_it(
    installation: Installation,
) -> None:
    tenant_id, _ = await furnish(installation)
    await admin_keys(installation, "new-epoch")
    (installation.store / "keystore" / tenant_id.hex / "1").write_bytes(b"damaged")
    refused = await admin_keys(installation, "retire-epoch", "1")
    assert (refused.returncode, "is cut short" in refused.stderr) == (1, True)
    assert sorted(key_file.read(installation.settings.keyring_file).keys()) == [1, 2]


async def back_up_the_catalog(installation: Installation) -> str:
    made = await admin(installation, "catalog", "backup", "--json")
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["id"])


async def stored_backups(installation: Installation) -> dict[str, str | None]:
    """The catalog's backups that are in the store, and what is wrong with each."""
    listed = await admin(installation, "catalog", "list", "--json")
    return {one["id"]: one["problem"] for one in json.loads(listed.stdout)}


async def test_a_root_key_stays_while_a_backup_of_the_catalog_needs_it(
    installation: Installation,
) -> None:
    """Sealed under it, or with secrets under it inside; ``--destroy-backups`` gives them up."""
    await furnish(installation)
    ports = installation.process()
    oldest = await back_up_the_catalog(installation)
    await admin_keys(installation, "new-epoch")
    between = await back_up_the_catalog(installation)
    assert (await ended(ports, await begun(ports))).state == "succeeded"

    last = await admin_keys(installation, "retire-epoch", "1", "--destroy-backups")
    assert last.returncode == 1
    assert "the newest backup of the catalog needs epoch 1" in last.stderr
    newest = await back_up_the_catalog(installation)
    refused = await admin_keys(installation, "retire-epoch", "1")
    assert refused.returncode == 1
    assert f"2 backups of the catalog need epoch 1: {between}, {oldest}; " in refused.stderr
    assert sorted(key_file.read(installation.settings.keyring_file).keys()) == [1, 2]

    retired = await admin_keys(installation, "retire-epoch", "1", "--destroy-backups", "--json")
    assert json.loads(retired.stdout) == {
        "retired": 1,
        "catalog_backups_destroyed": [between, oldest],
    }
    assert await stored_backups(installation) == {newest: None}
    assert len(list(installation.backups.rglob("data"))) == 1


async def test_a_backup_that_nothing_opens_keeps_no_root_key(installation: Installation) -> None:
    """And it is none to fall back on: whatever else is there is needed."""
    await furnish(installation)
    ports = installation.process()
    whole = await back_up_the_catalog(installation)
    await admin_keys(installation, "new-epoch")
    assert (await ended(ports, await begun(ports))).state == "succeeded"
    damaged = await back_up_the_catalog(installation)
    backup_id = parse("bk", damaged)
    assert backup_id is not None
    folder = installation.backups / "catalog" / backup_id.hex
    (folder / "manifest").write_bytes(b"damaged")
    only = await admin_keys(installation, "retire-epoch", "1", "--destroy-backups")
    assert "the newest backup of the catalog needs epoch 1" in only.stderr
    assert set(await stored_backups(installation)) == {damaged, whole}


async def test_status_counts_what_needs_each_epoch(installation: Installation) -> None:
    await furnish(installation)
    await admin_keys(installation, "new-epoch")
    shown = await admin_keys(installation, "status", "--json")
    rows = json.loads(shown.stdout)
    assert [(row["epoch"], row["state"], row["needed_by"]) for row in rows] == [
        (1, "retained", 7),
        (2, "active", 0),
    ]
