"""S-22: no secret is found where it does not belong, after all verbs and a few failures.

Every secret of the system is random, so finding one anywhere is a leak and nothing else.
"""

import asyncio
import base64
import json
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import redis

from deploy.local.stack import Stack
from tests.driver import Driver, fresh_slug


def spellings(secret: str) -> set[bytes]:
    """The secret as it is, and as an encoder would leave it."""
    raw = secret.encode()
    encoded = base64.b64encode(raw).decode().rstrip("=")
    texts = {secret, encoded, raw.hex(), urllib.parse.quote(secret, safe="")}
    return {text.encode() for text in texts}


@contextmanager
def every_command_line() -> Iterator[set[str]]:
    """The argv of every process that lived meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for process in psutil.process_iter(["cmdline"]):
                seen.add("\0".join(process.info["cmdline"] or []))
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def password_of(revealed: dict[str, Any]) -> str:
    parsed = urllib.parse.urlsplit(revealed["dsn"])
    assert parsed.password is not None
    return urllib.parse.unquote(parsed.password)


@pytest.fixture(scope="module")
def secret_files(stack: Stack) -> dict[str, str]:
    """The stack's own secrets, by the name of their file."""
    files = [*(stack.layout.home / "secrets").iterdir(), stack.layout.token]
    found = {path.name: path.read_text().strip() for path in files if path.is_file()}
    keys = json.loads((stack.layout.home / "keys" / "root.keys").read_text())
    found |= {f"root key {epoch}": held["key"] for epoch, held in keys["epochs"].items()}
    return found


async def test_no_secret_is_left_anywhere(
    driver: Driver, stack: Stack, secret_files: dict[str, str]
) -> None:
    slug = fresh_slug("canary")
    secrets = dict(secret_files)
    with every_command_line() as command_lines:
        await driver.create(slug)
        secrets["first password"] = password_of(await driver.dsn(slug))
        await driver.run(slug, "rotate", grace_seconds=1)
        secrets["second password"] = password_of(await driver.dsn(slug, "session"))
        await driver.call("POST", f"/v1/tenants/{slug}/key-rotations")
        revealed = await driver.call("POST", f"/v1/tenants/{slug}/field-keys")
        secrets |= {f"field key {key['version']}": key["key"] for key in revealed["keys"]}
        await provoke_failures(driver, slug, secrets)
        await driver.run(slug, "suspend")
        await driver.run(slug, "resume")
        await driver.settle()
    places = {
        "argv": "\n".join(command_lines).encode(),
        "redis": redis_content(stack),
        "catalog": await catalog_content(stack),
        "activity": await activity(stack),
        "keystore": keystore_content(stack),
        **{f"log of {log.stem}": log.read_bytes() for log in stack.layout.logs.glob("*.log")},
    }
    # A control: the search finds what is there.
    assert slug.encode() in places["catalog"]
    assert b"tenantry.sweep" in places["redis"] + places["log of beat"]
    assert places["keystore"].startswith(b"TNKY")
    leaks = [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, content in places.items()
        for spelling in spellings(secret)
        if len(spelling) >= 12 and spelling in content
    ]
    assert leaks == []


async def provoke_failures(driver: Driver, slug: str, secrets: dict[str, str]) -> None:
    """Errors are where secrets slip out: wrong passwords, bad bodies, unknown things."""
    wrong = "wrong-password-of-nobody"
    secrets["a wrong password"] = wrong
    revealed = await driver.dsn(slug)
    dsn = revealed["dsn"].replace(urllib.parse.urlsplit(revealed["dsn"]).password, wrong)
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(dsn)
    body = {"name": "pg-x", "host": "127.0.0.1", "port": 1, "user": "u", "password": wrong}
    assert (await driver.api.post("/v1/servers", json=body)).is_error
    assert (await driver.api.post("/v1/servers", json=body | {"extra": wrong})).is_error
    stranger = {"Authorization": f"Bearer tnk_{wrong}_{wrong}"}
    assert (await driver.api.get("/v1/tenants", headers=stranger)).status_code == 401


def redis_content(stack: Stack) -> bytes:
    facts = stack.facts()["redis"]
    client = redis.Redis(
        host=facts["host"],
        port=facts["port"],
        password=Path(facts["password_file"]).read_text().strip(),
    )
    content = b"\n".join(bytes(client.dump(key) or b"") + bytes(key) for key in client.scan_iter())
    client.close()
    return content


async def catalog_content(stack: Stack) -> bytes:
    """Everything a dump of the catalog shows: it alone must open nothing (S-20)."""
    facts = stack.facts()["catalog"]
    password = Path(facts["password_file"]).read_text().strip()
    dumped = await asyncio.to_thread(
        subprocess.run,
        [
            "/usr/bin/pg_dump",
            f"--host={facts['host']}",
            f"--port={facts['port']}",
            f"--username={facts['user']}",
            facts["database"],
        ],
        env={"PGPASSWORD": password},
        capture_output=True,
        check=True,
    )
    return bytes(dumped.stdout)


def keystore_content(stack: Stack) -> bytes:
    """Every tenant's wrapped keys: a copy of the store alone must open nothing."""
    return b"".join(file.read_bytes() for file in stack.layout.objects.rglob("keystore/*/*"))


async def activity(stack: Stack) -> bytes:
    """What the servers remember of statements."""
    content = []
    for server in stack.facts()["servers"]:
        connection = await asyncpg.connect(
            host=server["host"],
            port=server["port"],
            user=server["admin_user"],
            password=Path(server["admin_password_file"]).read_text().strip(),
            database="postgres",
        )
        rows = await connection.fetch("SELECT query FROM pg_stat_activity")
        content += [row["query"] or "" for row in rows]
        await connection.close()
    return "\n".join(content).encode()
