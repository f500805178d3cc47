"""The ends of tenants' lives on the whole stack: put away, taken out, deleted, given away."""

import asyncio
import base64
import hashlib
import io
import json
import stat
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pyrage  # type: ignore[import-untyped]  # it comes without stubs
import pytest

from control_plane.adapters import signatures
from control_plane.catalog import lifecycle
from control_plane.domain.names import parse
from control_plane.domain.plans import PLANS
from deploy.local.object_store import BUCKET
from deploy.local.stack import Stack
from tests.conftest import Cli
from tests.driver import Driver, fresh_slug

PATIENCE_SECONDS = 90.0
HELD = {"reason": "case 12-345"}


@pytest.fixture(autouse=True)
async def in_agreement(driver: Driver) -> AsyncIterator[None]:
    """After every test, when all work is over, the catalog matches reality."""
    yield
    await driver.assert_clean()


@asynccontextmanager
async def application(dsn: str) -> AsyncIterator[Any]:
    """A connection as the tenant's application makes it."""
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


async def write(dsn: str, *names: str) -> None:
    async with application(dsn) as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', 'dr-ada', true)")
        await connection.executemany(
            "INSERT INTO public.city (country_code, region, name) VALUES ('GB', 'England', $1)",
            [(name,) for name in names],
        )


async def cities(dsn: str) -> set[str]:
    async with application(dsn) as connection:
        return {row["name"] for row in await connection.fetch("SELECT name FROM public.city")}


async def new_clinic(driver: Driver, word: str, server: str = "pg-a") -> tuple[str, str]:
    """A tenant with a row, and its DSN."""
    slug = fresh_slug(word)
    await driver.create(slug, server=server)
    dsn: str = (await driver.dsn(slug))["dsn"]
    await write(dsn, "Leeds")
    return slug, dsn


async def tenant(driver: Driver, slug: str) -> dict[str, Any]:
    found: dict[str, Any] = await driver.call("GET", f"/v1/tenants/{slug}")
    return found


async def archive(driver: Driver, slug: str) -> dict[str, Any]:
    operation: dict[str, Any] = await driver.call("POST", f"/v1/tenants/{slug}/archives")
    return operation


async def delete(driver: Driver, slug: str, **query: Any) -> dict[str, Any]:
    asked = {"confirm": slug, **query}
    operation = await driver.call("DELETE", f"/v1/tenants/{slug}", params=asked)
    return await driver.finish(operation)


async def until(what: Callable[[], Awaitable[Any]], seconds: float = PATIENCE_SECONDS) -> Any:
    """What ``what`` answers once that is true."""
    async with asyncio.timeout(seconds):
        while not (found := await what()):
            await asyncio.sleep(0.2)
        return found


async def refused(driver: Driver, method: str, path: str, **request: Any) -> tuple[int, str]:
    answer = await driver.api.request(method, path, **request)
    return answer.status_code, answer.json()["code"]


async def count(catalog: Any, table: str, tenant_id: Any) -> int:
    found: int = await catalog.fetchval(
        f"SELECT count(*) FROM {table} WHERE tenant_id = $1",  # noqa: S608 - a table of this file
        tenant_id,
    )
    return found


def stored(stack: Stack, *parts: str) -> list[Path]:
    """Files of the object store below this prefix."""
    folder = stack.layout.objects.joinpath(BUCKET, "local", *parts)
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_an_archived_tenant_comes_back_on_a_newer_server_with_the_same_dsn(
    driver: Driver, catalog: Any
) -> None:
    slug, dsn = await new_clinic(driver, "archived")
    key = parse("tn", (await tenant(driver, slug))["id"])
    placed = "SELECT placed FROM servers WHERE name = 'pg-a'"
    before = await catalog.fetchval(placed)

    await driver.finish(await archive(driver, slug))

    shown = await tenant(driver, slug)
    assert (shown["state"], shown["server"]) == ("archived", None)
    assert await refused(driver, "POST", f"/v1/tenants/{slug}/dsn") == (409, "wrong_state")
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await cities(dsn)
    await driver.assert_clean()
    assert await catalog.fetchval(placed) == before - 1
    assert await count(catalog, "databases", key) == 0
    backup = await catalog.fetchrow(
        """SELECT b.* FROM backups b JOIN tenants t ON t.archive_backup_id = b.id
           WHERE t.id = $1""",
        key,
    )
    assert (backup["cause"], backup["pinned"], backup["state"]) == ("archive", True, "complete")
    assert backup["verified_at"] is not None

    back = await driver.call("DELETE", f"/v1/tenants/{slug}/archives", params={"server": "pg-b"})
    await driver.finish(back)

    shown = await tenant(driver, slug)
    assert (shown["state"], shown["server"]) == ("active", "pg-b")
    assert (await driver.dsn(slug))["dsn"] == dsn
    assert await cities(dsn) == {"Leeds"}
    await write(dsn, "York")
    pinned = "SELECT pinned FROM backups WHERE id = $1"
    assert not await catalog.fetchval(pinned, backup["id"])


async def test_a_damaged_archive_is_told_and_another_backup_takes_its_place(
    driver: Driver, catalog: Any
) -> None:
    slug, dsn = await new_clinic(driver, "damaged")
    here = f"/v1/tenants/{slug}"
    other, _ = await new_clinic(driver, "other")
    for name in (slug, other):
        await driver.finish(await driver.call("POST", f"/v1/tenants/{name}/backups"))
    earlier, foreign = [
        (await driver.call("GET", f"/v1/tenants/{name}/backups"))["items"][0]["id"]
        for name in (slug, other)
    ]
    await write(dsn, "York")
    await driver.finish(await archive(driver, slug))
    await catalog.execute(
        """UPDATE backups SET state = 'corrupt', problem = 'a bit fell over'
           WHERE id = (SELECT archive_backup_id FROM tenants WHERE slug = $1)""",
        slug,
    )
    await driver.settle()
    (finding,) = await driver.findings()
    assert (finding["code"], finding["subject"]) == ("I-5", slug)

    assert await refused(driver, "DELETE", f"{here}/archives") == (409, "wrong_state")
    wrong = {"params": {"backup_id": foreign}}
    assert await refused(driver, "DELETE", f"{here}/archives", **wrong) == (422, "invalid")
    right = {"params": {"backup_id": earlier}}
    await driver.finish(await driver.call("DELETE", f"{here}/archives", **right))
    assert await cities(dsn) == {"Leeds"}
    assert (await driver.dsn(slug))["dsn"] == dsn


async def test_an_archive_that_fails_lets_the_tenant_in_again(driver: Driver) -> None:
    """A hold that comes meanwhile is found before anything is gone."""
    slug, dsn = await new_clinic(driver, "held")
    begun = await archive(driver, slug)
    await driver.call("PUT", f"/v1/tenants/{slug}/legal-hold", json=HELD)

    ended = await driver.over(begun)

    assert (ended["state"], ended["error"]["code"]) == ("failed", "legal_hold")
    await driver.settle()
    assert (await tenant(driver, slug))["state"] == "active"
    assert await cities(dsn) == {"Leeds"}
    await driver.call("DELETE", f"/v1/tenants/{slug}/legal-hold")


async def test_an_archive_that_is_cancelled_lets_the_tenant_in_again(
    driver: Driver, catalog: Any
) -> None:
    slug, dsn = await new_clinic(driver, "cancelled")
    begun = await archive(driver, slug)
    await until(
        lambda: catalog.fetchval("SELECT state = 'withdrawn' FROM routes WHERE alias = $1", slug)
    )
    await driver.call("POST", f"/v1/operations/{begun['id']}/cancel")

    assert (await driver.over(begun))["state"] == "cancelled"
    await driver.settle()
    assert await cities(dsn) == {"Leeds"}


async def test_a_suspended_tenant_stays_cut_off_when_its_archive_fails(driver: Driver) -> None:
    slug, dsn = await new_clinic(driver, "cut")
    await driver.run(slug, "suspend")
    begun = await archive(driver, slug)
    await driver.call("PUT", f"/v1/tenants/{slug}/legal-hold", json=HELD)

    assert (await driver.over(begun))["state"] == "failed"
    await driver.settle()
    assert (await tenant(driver, slug))["state"] == "suspended"
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await cities(dsn)
    await driver.call("DELETE", f"/v1/tenants/{slug}/legal-hold")


async def test_undelete_brings_back_what_was_there(driver: Driver) -> None:
    active, dsn = await new_clinic(driver, "active")
    cut, _ = await new_clinic(driver, "suspended", "pg-b")
    away, away_dsn = await new_clinic(driver, "away")
    await driver.run(cut, "suspend")
    await driver.finish(await archive(driver, away))
    for slug in (active, cut, away):
        await delete(driver, slug)
        shown = await tenant(driver, slug)
        assert shown["state"] == "deleting"
        assert shown["delete_after"] is not None
        assert shown["shred_after"] is None
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await cities(dsn)
    await driver.assert_clean()

    for slug in (active, cut, away):
        await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/undelete"))

    states = {slug: (await tenant(driver, slug))["state"] for slug in (active, cut, away)}
    assert states == {active: "active", cut: "suspended", away: "archived"}
    assert (await driver.dsn(active))["dsn"] == dsn
    assert await cities(dsn) == {"Leeds"}
    await driver.finish(await driver.call("DELETE", f"/v1/tenants/{away}/archives"))
    assert await cities(away_dsn) == {"Leeds"}


async def test_a_deleted_tenant_is_gone_and_there_is_a_certificate(
    driver: Driver, catalog: Any, stack: Stack, cli: Cli
) -> None:
    slug, dsn = await new_clinic(driver, "deleted")
    shown = await tenant(driver, slug)
    key = parse("tn", shown["id"])
    assert key is not None
    await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/backups"))
    assert stored(stack, "backups", key.hex)
    assert [path for path in stored(stack, "keystore") if key.hex in str(path)]

    await delete(driver, slug, grace_seconds=0, keep_backups_days=0, final_backup=True)

    await until(
        lambda: catalog.fetchval("SELECT state = 'deleted' FROM tenants WHERE id = $1", key)
    )
    assert await refused(driver, "GET", f"/v1/tenants/{slug}") == (404, "not_found")
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await cities(dsn)
    assert [path for path in stored(stack) if key.hex in str(path)] == []
    for table in ("databases", "backup_schedules", "backup_turns"):
        assert await count(catalog, table, key) == 0, table
    kept = "SELECT count(*) FROM credentials WHERE role_set_id = $1"
    assert await catalog.fetchval(kept, key) == 0
    keys = "SELECT array_agg(DISTINCT state) FROM tenant_keys WHERE tenant_id = $1"
    assert await catalog.fetchval(keys, key) == ["destroyed"]

    certificate = await driver.call("GET", f"/v1/tenants/{slug}/certificate")
    assert certificate["tenant"] == shown["id"]
    _is_complete(certificate["document"])
    told = cli("tenants", "certificate", slug)
    assert told.code == 0, told
    assert "right" in told.stdout
    # The slug is free; it still leads to the certificate.
    assert (await driver.create(slug))["id"] != shown["id"]
    assert await driver.call("GET", f"/v1/tenants/{slug}/certificate") == certificate


def _is_complete(document: dict[str, Any]) -> None:
    assert document["requested"]["by"] == "local-admin"
    assert document["counts"]["backups"] == 2
    assert document["counts"]["databases"] == 1
    assert document["destroyed"]["databases"][0]["server"] == "pg-a"
    assert document["counts"]["key_versions"] >= 1
    assert all(one["destroyed_at"] for one in document["destroyed"]["key_versions"])
    not_reached = {one["what"] for one in document["not_reached"]}
    assert {"copies of the keystore", "copies of the catalog"} <= not_reached


async def test_a_forged_certificate_is_told_from_ours(driver: Driver) -> None:
    slug = fresh_slug("forged")
    await driver.create(slug)
    await delete(driver, slug, grace_seconds=0, keep_backups_days=0)
    found = await until(lambda: _found(driver, slug))
    public_key = base64.b64decode(found["public_key"])
    signature = base64.b64decode(found["signature"])
    assert signatures.verifies(signatures.canonical(found["document"]), signature, public_key)
    found["document"]["counts"]["backups"] = 17
    assert not signatures.verifies(signatures.canonical(found["document"]), signature, public_key)


async def test_nothing_is_destroyed_under_legal_hold(driver: Driver, catalog: Any) -> None:
    slug, dsn = await new_clinic(driver, "hold")
    key = parse("tn", (await tenant(driver, slug))["id"])
    held = await driver.call("PUT", f"/v1/tenants/{slug}/legal-hold", json=HELD)
    assert held["legal_hold"] is True
    assert (await driver.call("GET", f"/v1/tenants/{slug}/legal-hold"))["reason"] == "case 12-345"
    for method, path in (
        ("DELETE", f"/v1/tenants/{slug}?confirm={slug}"),
        ("POST", f"/v1/tenants/{slug}/archives"),
    ):
        assert await refused(driver, method, path) == (409, "legal_hold")
    assert await cities(dsn) == {"Leeds"}

    await driver.call("DELETE", f"/v1/tenants/{slug}/legal-hold")
    await delete(driver, slug, keep_backups_days=0, final_backup=False)
    await driver.call("PUT", f"/v1/tenants/{slug}/legal-hold", json=HELD)
    over = "UPDATE tenants SET delete_after = clock_timestamp() - interval '2 h' WHERE id = $1"
    await catalog.execute(over, key)

    assert await lifecycle.due(catalog, after_failure_minutes=10, limit=100) == []
    await driver.assert_clean()
    assert (await tenant(driver, slug))["state"] == "deleting"
    with pytest.raises(asyncpg.PostgresError, match="legal hold"):
        await catalog.execute("UPDATE tenants SET state = 'deleted' WHERE id = $1", key)

    await driver.call("DELETE", f"/v1/tenants/{slug}/legal-hold")
    await until(
        lambda: catalog.fetchval("SELECT state = 'deleted' FROM tenants WHERE id = $1", key)
    )


async def test_a_hold_is_found_at_the_moment_of_destruction(driver: Driver) -> None:
    """The worker dies and its lease has to run out: time enough for a hold to come."""
    slug, dsn = await new_clinic(driver, "moment")
    armed = driver.arm("purge", "prepare_backup", "before", slug, "sigkill")
    await delete(driver, slug, grace_seconds=0, final_backup=True)
    await until(lambda: _is_gone(armed))
    await driver.call("PUT", f"/v1/tenants/{slug}/legal-hold", json=HELD)

    ended = await driver.over(await newest(driver, slug, "purge"))

    assert ended["error"]["code"] == "legal_hold"
    assert {step["name"]: step["state"] for step in ended["steps"]}["give_up_databases"] == "failed"
    await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/undelete"))
    await driver.call("DELETE", f"/v1/tenants/{slug}/legal-hold")
    assert (await driver.dsn(slug))["dsn"] == dsn
    assert await cities(dsn) == {"Leeds"}


async def test_a_hold_that_comes_too_late_is_told_so(driver: Driver) -> None:
    slug, _ = await new_clinic(driver, "late")
    armed = driver.arm("shred", "destroy_keys", "before", slug, "sigkill")
    await delete(driver, slug, grace_seconds=0, keep_backups_days=0)
    await until(lambda: _is_gone(armed))

    hold = f"/v1/tenants/{slug}/legal-hold"
    assert await refused(driver, "PUT", hold, json=HELD) == (409, "operation_in_progress")
    await driver.finish(await newest(driver, slug, "shred"))


async def test_every_refusal_is_one_clear_problem(driver: Driver, catalog: Any) -> None:
    slug, _ = await new_clinic(driver, "refused")
    here = f"/v1/tenants/{slug}"
    assert await refused(driver, "DELETE", here, params={"confirm": "other"}) == (422, "invalid")
    assert await refused(driver, "DELETE", here) == (422, "invalid")
    assert await refused(driver, "POST", f"{here}/undelete") == (409, "wrong_state")
    assert await refused(driver, "DELETE", f"{here}/archives") == (409, "wrong_state")
    assert await refused(driver, "DELETE", f"{here}/legal-hold") == (409, "wrong_state")
    assert await refused(driver, "GET", f"{here}/certificate") == (409, "wrong_state")
    wrong = {"json": {"recipient": "age1" + "q" * 58}}
    assert await refused(driver, "POST", f"{here}/exports", **wrong) == (422, "invalid")

    await driver.finish(await archive(driver, slug))
    right = {"json": {"recipient": str(pyrage.x25519.Identity.generate().to_public())}}
    assert await refused(driver, "POST", f"{here}/exports", **right) == (409, "wrong_state")
    assert await refused(driver, "POST", f"{here}/archives") == (409, "wrong_state")
    nowhere = {"params": {"server": "pg-nowhere"}}
    assert await refused(driver, "DELETE", f"{here}/archives", **nowhere) == (422, "invalid")
    assert (await tenant(driver, slug))["state"] == "archived"

    await delete(driver, slug, grace_seconds=0, keep_backups_days=30)
    assert await refused(driver, "DELETE", here, params={"confirm": slug}) == (409, "wrong_state")
    await until(lambda: _shreds_later(driver, slug))
    assert await refused(driver, "POST", f"{here}/undelete") == (409, "wrong_state")
    past = "UPDATE tenants SET shred_after = clock_timestamp() WHERE slug = $1"
    await catalog.execute(past, slug)
    await until(lambda: _found(driver, slug))


def test_a_dry_run_tells_the_plan(cli: Cli, tmp_path: Path) -> None:
    slug = fresh_slug("rehearsed")
    assert cli("tenants", "create", slug, "--wait").code == 0
    for verb, plan in (("archive", PLANS["archive"]), ("delete", PLANS["delete"])):
        told = cli("tenants", verb, slug, "--dry-run", "--json")
        assert json.loads(told.stdout)["steps"] == list(plan.steps)
    told = cli("export", slug, "--to", str(tmp_path), "--dry-run")
    assert all(step in told.stdout for step in PLANS["export"].steps)
    assert json.loads(cli("tenants", "show", slug, "--json").stdout)["state"] == "active"
    assert cli("tenants", "delete", slug).code == 2


async def test_an_export_by_the_command_line(
    driver: Driver, cli: Cli, tmp_path: Path, catalog: Any, stack: Stack
) -> None:
    slug, _ = await new_clinic(driver, "exported", "pg-b")

    told = await asyncio.to_thread(cli, "export", slug, "--to", str(tmp_path), "--json")

    assert told.code == 0, told
    made = json.loads(told.stdout)
    sealed, key = Path(made["file"]), Path(made["key_file"])
    assert {path.name for path in tmp_path.iterdir()} == {sealed.name, key.name}
    for path in (sealed, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert hashlib.sha256(sealed.read_bytes()).hexdigest() == made["sha256"]
    identity = pyrage.x25519.Identity.from_str(key.read_text().strip())
    bundle = zipfile.ZipFile(io.BytesIO(pyrage.decrypt(sealed.read_bytes(), [identity])))
    assert b"Leeds" in bundle.read("data/public/city.csv")
    manifest = json.loads(bundle.read("manifest.json"))
    assert (manifest["slug"], manifest["tenant"]) == (slug, made["tenant"])
    assert sum(table["rows"] for table in manifest["tables"]) == made["rows"]
    actions = "SELECT array_agg(action ORDER BY seq) FROM audit_events WHERE subject = $1"
    assert {"tenant.export", "export.link"} <= set(await catalog.fetchval(actions, slug))

    due = "UPDATE exports SET expires_at = clock_timestamp() WHERE id = $1"
    await catalog.execute(due, parse("ex", made["id"]))
    gone = "SELECT state = 'deleted' FROM exports WHERE id = $1"
    await until(lambda: catalog.fetchval(gone, parse("ex", made["id"])))
    key_id = parse("tn", made["tenant"])
    assert key_id is not None
    assert stored(stack, "exports", key_id.hex) == []
    link = f"/v1/exports/{made['id']}/links"
    assert await refused(driver, "POST", link) == (409, "wrong_state")


async def test_a_link_is_short_lived_shown_once_and_for_one_object(driver: Driver) -> None:
    slug, _ = await new_clinic(driver, "linked")
    identity = pyrage.x25519.Identity.generate()
    body = {"recipient": str(identity.to_public()), "keep_hours": 1}
    await driver.finish(await driver.call("POST", f"/v1/tenants/{slug}/exports", json=body))
    (made,) = (await driver.call("GET", f"/v1/tenants/{slug}/exports"))["items"]
    assert made["state"] == "ready"
    path = f"/v1/exports/{made['id']}/links"
    assert await refused(driver, "POST", path, json={"seconds": 901}) == (422, "invalid")

    once = {"Idempotency-Key": f"{slug}-link"}
    first = await driver.api.post(path, headers=once)
    again = await driver.api.post(path, headers=once)
    assert first.headers["cache-control"] == again.headers["cache-control"] == "no-store"
    assert again.json()["url"] is None
    url = first.json()["url"]
    asked = parse_qs(urlsplit(url).query)
    assert int(asked["X-Amz-Expires"][0]) <= 900
    async with httpx.AsyncClient() as customer:
        fetched = await customer.get(url)
        assert hashlib.sha256(fetched.content).hexdigest() == made["sha256"]
        other = await customer.get(url.replace("bundle.", "other."))
        assert other.status_code in (400, 403, 404)
        brief = (await driver.call("POST", path, json={"seconds": 1}))["url"]
        await until(lambda: _is_refused(customer, brief))
    assert urlsplit(url).path.endswith(".zip.age")


async def newest(driver: Driver, slug: str, kind: str) -> dict[str, Any]:
    """The newest operation of this kind; the tenant may be gone by now."""
    found = await driver.operations()
    return next(one for one in found if (one["kind"], one["subject"]) == (kind, slug))


async def _is_gone(armed: Path) -> bool:
    return not armed.exists()


async def _found(driver: Driver, slug: str) -> Any:
    answer = await driver.api.get(f"/v1/tenants/{slug}/certificate")
    return answer.json() if answer.is_success else None


async def _shreds_later(driver: Driver, slug: str) -> bool:
    shown = await tenant(driver, slug)
    return shown["shred_after"] is not None and shown["operation"] is None


async def _is_refused(customer: httpx.AsyncClient, url: str) -> bool:
    return (await customer.get(url)).status_code in (400, 403)
