"""Every refusal is a clear problem document, tells no internals (S-30), and leaves nothing."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from control_plane.catalog import servers
from control_plane.config import REPOSITORY, Secret, Settings
from tests.integration.api.world import World, running_api
from tests.integration.tenant_server.postgres_fixture import ADMIN, TenantServer

INTERNALS = (
    "Traceback",
    ".py",
    "SELECT",
    "INSERT",
    "asyncpg",
    "postgresql://",
    tempfile.gettempdir(),
)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document of a refusal, after checking what every one of them has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["type"] == f"urn:tenantry:problem:{code}"
    assert body["status"] == status
    assert body["instance"] == answer.request.url.path
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"]
    assert "\n" not in body["detail"]
    assert not [word for word in INTERNALS if word in answer.text]
    return body


def fields(body: dict[str, Any]) -> list[str]:
    return [error["field"] for error in body["errors"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "A", "name": "a"}, "slug"),
        ({"slug": "postgres", "name": "a"}, "slug"),
        ({"slug": "a--%", "name": "a"}, "slug"),
        ({"slug": "acme\n", "name": "a"}, "slug"),
        ({"slug": "no-name"}, "name"),
        ({"slug": "bad-name", "name": ""}, "name"),
        ({"slug": "bad-name", "name": "a\u0000b"}, "name"),
        ({"slug": "bad-tier", "name": "a", "tier": "gold"}, "tier"),
        ({"slug": "bad-region", "name": "a", "region": "EU West"}, "region"),
        ({"slug": "bad-server", "name": "a", "server": "nowhere"}, "server"),
        ({"slug": "extra", "name": "a", "nmae": "b"}, "nmae"),
        ({"slug": "bad-label", "name": "a", "labels": {"a": 1}}, "labels[...]"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_a_tenant_that_cannot_be_meant(
    world: World, admin: httpx.AsyncClient, body: object, field: str
) -> None:
    before = await counts(world)
    answer = await admin.post("/v1/tenants", json=body)
    assert fields(problem(answer, 422, "invalid")) == [field]
    assert await counts(world) == before


async def counts(world: World) -> dict[str, int]:
    """Rows of everything a refused request must not add to; places that are taken."""
    async with world.ports.catalog.connection() as db:
        row = await db.fetchrow(
            """SELECT (SELECT count(*) FROM tenants) AS tenants,
                      (SELECT count(*) FROM operations) AS operations,
                      (SELECT count(*) FROM databases) AS databases,
                      (SELECT count(*) FROM role_sets) AS role_sets,
                      (SELECT count(*) FROM servers) AS servers,
                      (SELECT sum(placed) FROM servers) AS placed,
                      (SELECT sum(tenants) FROM cells) AS in_cells"""
        )
    return dict(row or {})


async def test_no_room_says_why_for_each_server(world: World, admin: httpx.AsyncClient) -> None:
    before = await counts(world)
    wanted = {"slug": "nowhere-to-go", "name": "a", "region": "mars"}
    body = problem(await admin.post("/v1/tenants", json=wanted), 409, "no_capacity")
    assert "pg-a is in region local" in body["detail"]
    assert await counts(world) == before


async def test_a_full_server_says_so(world: World, admin: httpx.AsyncClient) -> None:
    async with world.ports.catalog.transaction() as db:
        server = await servers.find(db, "pg-a")
        await db.execute("UPDATE servers SET capacity = placed WHERE id = $1", server.id)
    before = await counts(world)
    try:
        wanted = {"slug": "one-too-many", "name": "a", "server": "pg-a"}
        body = problem(await admin.post("/v1/tenants", json=wanted), 409, "no_capacity")
        assert f"pg-a is full ({server.placed} of {server.placed})" in body["detail"]
        assert await counts(world) == before
    finally:
        async with world.ports.catalog.transaction() as db:
            await db.execute(
                "UPDATE servers SET capacity = $2 WHERE id = $1", server.id, server.capacity
            )


async def test_a_busy_tenant_names_what_it_is_busy_with(
    world: World, admin: httpx.AsyncClient
) -> None:
    operation = await world.new_tenant("busy-clinic")
    answer = await admin.post("/v1/tenants/busy-clinic/suspensions")
    body = problem(answer, 409, "operation_in_progress")
    assert body["operation"] == operation["id"]


async def test_bodies_that_cannot_be_read(admin: httpx.AsyncClient) -> None:
    for content in (b"{", b"\xff\xfe", b'{"slug": "a",}', b'"\\ud800"'):
        problem(await admin.post("/v1/tenants", content=content), 400, "malformed")
    huge = await admin.post("/v1/tenants", json={"slug": "huge", "name": "x" * 70_000})
    problem(huge, 413, "too_large")


async def test_paths_and_methods(admin: httpx.AsyncClient) -> None:
    problem(await admin.get("/v1/nothing"), 404, "not_found")
    problem(await admin.get("/v1/tenants/%00"), 404, "not_found")
    problem(await admin.get("/v1/tenants/" + "x" * 65), 404, "not_found")
    refused = await admin.put("/v1/tenants/own-clinic")
    problem(refused, 405, "method_not_allowed")
    assert "GET" in refused.headers["allow"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("state=unknown", "state"),
        ("sort=name", "sort"),
        ("server=a%00b", "server"),
        ("server=null", "server"),
        ("slug_prefix=A%25", "slug_prefix"),
        ("tier=standard&tier=dedicated", "tier"),
    ],
)
async def test_queries_that_cannot_be_meant(
    admin: httpx.AsyncClient, query: str, field: str
) -> None:
    assert fields(problem(await admin.get(f"/v1/tenants?{query}"), 422, "invalid")) == [field]


@pytest.mark.parametrize(
    "since",
    ["yesterday", "0", "2026-01-31", "2026-01-31T08:00:00", "0001-01-01T00:00:00%2B14:00"],
)
async def test_a_moment_needs_its_zone_and_has_to_exist(
    admin: httpx.AsyncClient, since: str
) -> None:
    body = problem(await admin.get(f"/v1/audit?since={since}"), 422, "invalid")
    assert fields(body) == ["since"]


async def test_the_callers_request_id_comes_back_unless_it_is_dirty(
    admin: httpx.AsyncClient,
) -> None:
    answer = await admin.get("/v1/plans", headers={"X-Request-Id": "trace-42:a.b"})
    assert answer.headers["x-request-id"] == "trace-42:a.b"
    for dirty in ("two words", 'a"b', "x" * 129):
        answer = await admin.get("/v1/plans", headers={"X-Request-Id": dirty})
        assert answer.headers["x-request-id"] != dirty


async def test_a_crash_tells_an_id_and_the_log_the_rest(
    world: World, admin: httpx.AsyncClient
) -> None:
    """A database error that no rule knows, from a trigger inside the catalog."""
    async with world.ports.catalog.connection() as db:
        await db.execute(
            """CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN RAISE EXCEPTION 'secret-canary in %', NEW USING ERRCODE = 'XX000'; END $$"""
        )
        await db.execute(
            """CREATE TRIGGER crash BEFORE INSERT ON tenants FOR EACH ROW
               WHEN (NEW.slug = 'crash-me') EXECUTE FUNCTION crash()"""
        )
        try:
            answer = await admin.post("/v1/tenants", json={"slug": "crash-me", "name": "a"})
        finally:
            await db.execute("DROP FUNCTION crash CASCADE")
    body = problem(answer, 500, "internal_error")
    assert "secret-canary" not in answer.text
    assert body["request_id"] in world.log.read_text()
    assert "request_crashed" in world.log.read_text()


async def test_a_catalog_that_is_away(api_settings: Settings) -> None:
    away = msgspec.structs.replace(
        api_settings, catalog_dsn=f"postgresql://{ADMIN}@127.0.0.1:1/nothing"
    )
    with running_api(away, {}, until="/health/live") as (url, _):
        headers = {"Authorization": f"Bearer tnk_{'a' * 16}_{'a' * 52}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            for path in ("/health/ready", "/v1/tenants"):
                answer = await client.get(path)
                problem(answer, 503, "catalog_unavailable")
                assert answer.headers["retry-after"] == "2"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_server(postgres: TenantServer, **changes: object) -> dict[str, object]:
    body: dict[str, object] = {
        "name": "pg-new",
        "host": "127.0.0.1",
        "port": postgres.port,
        "user": ADMIN,
        "password": "not-the-password",
    }
    return body | changes


async def test_servers_that_cannot_be_enrolled(
    world: World, admin: httpx.AsyncClient, catalog_postgres: TenantServer
) -> None:
    before = await counts(world)
    wrong = await admin.post("/v1/servers", json=new_server(catalog_postgres))
    problem(wrong, 422, "server_refused")
    silent = await admin.post("/v1/servers", json=new_server(catalog_postgres, port=closed_port()))
    problem(silent, 503, "server_unavailable")
    metadata = await admin.post(
        "/v1/servers", json=new_server(catalog_postgres, host="169.254.169.254")
    )
    assert "host" in fields(problem(metadata, 422, "invalid"))
    unnamed = await admin.post("/v1/servers", json=new_server(catalog_postgres, name="Bad Name"))
    assert fields(problem(unnamed, 422, "invalid")) == ["name"]
    for answer in (wrong, silent, metadata, unnamed):
        assert "not-the-password" not in answer.text
    assert "not-the-password" not in world.log.read_text()
    assert await counts(world) == before


async def test_a_server_is_enrolled_and_its_password_is_nowhere(
    world: World, admin: httpx.AsyncClient, catalog_postgres: TenantServer
) -> None:
    password: Secret = catalog_postgres.password
    body = new_server(catalog_postgres, name="pg-new", password=password.reveal(), capacity=1)
    answer = await admin.post("/v1/servers", json=body, headers={"Idempotency-Key": "enrol-1"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["kind"] == "enrol"
    assert answer.headers["location"] == f"/v1/operations/{answer.json()['id']}"
    shown = await admin.get("/v1/servers/pg-new")
    assert shown.json()["state"] == "enrolling"
    assert {"name", "level", "found", "wanted", "remedy"} <= set(shown.json()["preflight"][0])
    problem(await admin.post("/v1/servers", json=body), 409, "conflict")
    problem(await admin.post("/v1/servers/pg-new/drain"), 409, "wrong_state")
    assert password.reveal() not in answer.text + shown.text + world.log.read_text()


def test_a_process_without_its_settings_says_which(api_home: Path) -> None:
    command = [sys.executable, "-m", "uvicorn", "control_plane.web:create_app", "--factory"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    for given, words in (
        ({}, "TENANTRY_CATALOG_DSN is not set"),
        (
            {
                "TENANTRY_CATALOG_DSN": "postgresql://x@127.0.0.1:1/x",
                "TENANTRY_REDIS_URL": "redis://127.0.0.1:1/0",
                "TENANTRY_KEYRING_FILE": str(api_home / "nowhere"),
            },
            "tenantry admin keys init",
        ),
    ):
        ended = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=kept | given,
            cwd=REPOSITORY,
        )
        assert ended.returncode == 1
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
