"""``tenantry admin``: the two commands that work before there is an API."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.adapters.keyring import Keyring
from control_plane.config import Settings
from tests.integration.api.conftest import OWN
from tests.integration.api.world import World


def admin(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    password = settings.home / "admin-catalog.password"
    if settings.catalog_password is not None:
        password.write_text(settings.catalog_password.reveal())
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    environment = {
        "TENANTRY_HOME": str(settings.home),
        "TENANTRY_CATALOG_DSN": settings.catalog_dsn,
        "TENANTRY_CATALOG_PASSWORD_FILE": str(password),
        "TENANTRY_REDIS_URL": settings.redis_url,
        "TENANTRY_KEYRING_FILE": str(settings.home / "made" / "root.keys"),
    }
    return subprocess.run(
        [str(Path(sys.executable).with_name("tenantry")), "admin", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=kept | environment,
    )


async def test_the_first_key_is_printed_and_nothing_else(
    world: World, api_settings: Settings
) -> None:
    made = admin(
        api_settings, "create-key", "--name", "first", "--role", "auditor", "--role", "operator"
    )
    assert (made.returncode, made.stderr) == (0, "")
    token = made.stdout.strip()
    async with world.client(token) as client:
        assert (await client.get("/v1/plans")).status_code == 200
        assert (await client.post("/v1/keys", json={})).status_code == 403
    async with world.ports.catalog.connection() as db:
        row = await db.fetchrow(
            "SELECT name, roles, created_by FROM api_keys WHERE lookup = $1", token.split("_")[1]
        )
        actor = await db.fetchval(
            "SELECT actor FROM audit_events WHERE action = 'key.create' ORDER BY seq DESC LIMIT 1"
        )
    assert row is not None
    assert (row["name"], row["roles"]) == ("first", ["auditor", "operator"])
    assert row["created_by"] == actor
    assert actor.startswith("cli:")


async def test_an_app_key_for_one_tenant(world: World, api_settings: Settings) -> None:
    made = admin(api_settings, "create-key", "--name", "clinic", "--role", "app", "--tenant", OWN)
    assert made.returncode == 0, made.stderr
    async with world.client(made.stdout.strip()) as client:
        assert (await client.post(f"/v1/tenants/{OWN}/dsn")).status_code == 200
        assert (await client.get("/v1/tenants")).status_code == 403


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--name", "x"], 2, "--role"),
        (["--name", "x", "--role", "root"], 2, "root"),
        (["--name", "x", "--role", "app", "--tenant", "nobody"], 1, "there is no tenant 'nobody'"),
        (["--name", "x", "--role", "breakglass", "--days", "2"], 1, "at most 8 hours"),
    ],
)
def test_a_key_that_cannot_be(
    api_settings: Settings, arguments: list[str], code: int, words: str
) -> None:
    refused = admin(api_settings, "create-key", *arguments)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_root_key_is_made_once(api_settings: Settings) -> None:
    made = admin(api_settings, "init-keyring")
    path = Path(made.stdout.strip())
    assert (made.returncode, made.stderr) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    Keyring.load(path)
    content = path.read_bytes()
    again = admin(api_settings, "init-keyring")
    assert again.returncode == 1
    assert "cannot create the key file" in again.stderr
    assert path.read_bytes() == content
