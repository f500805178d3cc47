"""The runbook for the day when everything but the store and two shares of the root key is lost.

Every command of deploy/runbooks/restore-by-hand.md, on a Postgres that never knew Tenantry.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug
from tests.integration.tenant_server.postgres_fixture import ADMIN, TenantServer, running_server
from tests.integration.test_restores import write

RESTORED = "restored"
PASSWORD = "by-hand"


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("tenantry")), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def done(environment: dict[str, str], *arguments: str) -> str:
    ended = run(environment, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def empty_machine(stack: Stack, tmp_path: Path) -> dict[str, str]:
    """Where the store is, its credentials, two shares of the root key; no catalog, no servers."""
    settings: dict[str, str] = stack.facts()["environment"]
    done(settings, "admin", "keys", "escrow", "--to", str(tmp_path / "shares"))
    (tmp_path / "shares" / "share-2.txt").unlink()
    return {
        "TENANTRY_HOME": str(tmp_path),
        "TENANTRY_KEYRING_FILE": str(tmp_path / "root.keys"),
        **{name: value for name, value in settings.items() if name.startswith("TENANTRY_S3_")},
        "TENANTRY_BACKUP_STORE": settings["TENANTRY_BACKUP_STORE"],
    }


def restore(server: TenantServer, archive: Path) -> None:
    """pg_restore as anybody would: the archive's roles are not there, and are not wanted."""
    subprocess.run(
        [
            str(server.bin / "pg_restore"),
            *("--no-owner", "--no-privileges", "--exit-on-error"),
            f"--dbname={RESTORED}",
            str(archive),
        ],
        check=True,
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": RESTORED,
            "PGPASSWORD": PASSWORD,
        },
    )


async def test_a_drill_is_repeated_by_hand(
    driver: Driver, empty_machine: dict[str, str], tmp_path: Path
) -> None:
    slug = fresh_slug("by-hand")
    await driver.create(slug, server="pg-a")
    await write(driver, slug, "Leeds", "York")
    backup = await driver.back_up(slug)
    await driver.finish(await driver.verify(backup), 120)
    (drill,) = (await driver.call("GET", f"/v1/backups/{backup}"))["drills"]
    shares = [f"--from-shares={tmp_path / 'shares' / f'share-{n}.txt'}" for n in (1, 3)]
    done(empty_machine, "admin", "keys", "rebuild", *shares)
    listed = json.loads(done(empty_machine, "admin", "stored", "list", "--tenant", slug, "--json"))
    assert [one["id"] for one in listed] == [backup]
    archive = tmp_path / "clinic.dump"
    done(empty_machine, "admin", "stored", "extract", backup, "--to", str(archive))
    assert archive.stat().st_mode & 0o077 == 0
    with running_server(18) as server:
        admin = await server.admin()
        await admin.execute(f"CREATE ROLE {RESTORED} LOGIN PASSWORD '{PASSWORD}'")
        await admin.execute(f"CREATE DATABASE {RESTORED} OWNER {RESTORED}")
        await admin.close()
        restore(server, archive)
        facts = compare(empty_machine, server, backup)
        assert facts["content"] == drill["content_hash"]
        assert facts["rows"] == drill["rows"]
        await spoil(server)
        ended = run(*comparison(empty_machine, server, backup))
        assert ended.returncode == 1
        assert "public.city" in ended.stdout


def compare(environment: dict[str, str], server: TenantServer, backup: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(*comparison(environment, server, backup), "--json"))
    return found


def comparison(
    environment: dict[str, str], server: TenantServer, backup: str
) -> tuple[dict[str, str], *tuple[str, ...]]:
    """Environment and arguments of the command that compares."""
    return (
        environment | {"TENANTRY_SERVER_PASSWORD": PASSWORD},
        *("admin", "stored", "compare", backup, "--host=127.0.0.1", f"--port={server.port}"),
        *(f"--user={RESTORED}", f"--database={RESTORED}", "--tls=disable"),
    )


async def spoil(server: TenantServer) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=server.port,
        user=ADMIN,
        password=server.password.reveal(),
        database=RESTORED,
    )
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("UPDATE public.city SET name = 'Hull' WHERE name = 'York'")
    await connection.close()


def test_without_the_shares_nothing_opens(empty_machine: dict[str, str]) -> None:
    ended = run(empty_machine, "admin", "stored", "list")
    assert ended.returncode == 1
    assert "root.keys" in ended.stderr
