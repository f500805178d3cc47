"""Two servers of Postgres 18 on the session's stack whose administrators are no superusers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import pytest

from deploy.local.stack import Stack
from tests.driver import OVER, fresh_slug
from tests.integration.tenant_server.postgres_fixture import (
    TenantServer,
    make_limited,
    running_server,
)

MANAGED = "tenantry_managed"
# As far as a stock server can play Amazon RDS: the master user has these and no attribute more.
# Whoever has the role that streams there does not stream here.
MANAGED_SCRIPT = f"""
CREATE ROLE rds_superuser NOLOGIN;
CREATE ROLE rds_replication NOLOGIN;
CREATE ROLE {MANAGED} LOGIN NOSUPERUSER INHERIT CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT pg_monitor, pg_signal_backend, pg_create_subscription TO rds_superuser;
GRANT EXECUTE ON FUNCTION pg_replication_origin_advance(text, pg_lsn) TO rds_superuser;
GRANT rds_superuser, rds_replication TO {MANAGED} WITH ADMIN OPTION;
ALTER DATABASE postgres OWNER TO {MANAGED};
"""
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Enrolled:
    """A server as the catalog has it, and the cluster itself."""

    name: str
    cluster: TenantServer


@pytest.fixture(scope="module")
def limited(stack: Stack, token: str) -> Iterator[Enrolled]:
    """Its administrator is as the statements make it that Tenantry prints."""
    with running_server(18, limited=True) as cluster, enrolled(stack, token, cluster) as server:
        yield server


@pytest.fixture(scope="module")
def managed(stack: Stack, token: str) -> Iterator[Enrolled]:
    """Its administrator is what a provider leaves to a customer."""
    with running_server(18) as cluster:
        make_limited(cluster, MANAGED, MANAGED_SCRIPT)
        with enrolled(stack, token, replace(cluster, user=MANAGED)) as server:
            yield server


@contextmanager
def enrolled(stack: Stack, token: str, cluster: TenantServer) -> Iterator[Enrolled]:
    """The server takes tenants in the block, and is out of the fleet after it."""
    name = fresh_slug("limited")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=stack.facts()["api_url"], headers=headers, timeout=60) as api:
        body = {
            "name": name,
            "host": "127.0.0.1",
            "port": cluster.port,
            "user": cluster.user,
            "password": cluster.password.reveal(),
            "capacity": 20,
            "tls": "disable",
        }
        _succeeded(api, _answer(api.post("/v1/servers", json=body)))
        try:
            yield Enrolled(name, cluster)
        finally:
            _remove(api, name)


def _remove(api: httpx.Client, name: str) -> None:
    """Tenants of it are gone; what was made ahead goes with the second call."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = api.delete(f"/v1/servers/{name}")
        if answer.is_success and (not answer.content or answer.json().get("removed")):
            return
        assert "still holds" not in answer.text
        assert time.monotonic() < deadline, f"{answer.status_code} {answer.text}"
        time.sleep(0.3)


def _succeeded(api: httpx.Client, operation: dict[str, str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while operation["state"] not in OVER:
        assert time.monotonic() < deadline, operation
        time.sleep(0.2)
        operation = _answer(api.get(f"/v1/operations/{operation['id']}"))
    assert operation["state"] == "succeeded", operation


def _answer(answer: httpx.Response) -> dict[str, str]:
    assert answer.is_success, answer.text
    found: dict[str, str] = answer.json()
    return found
