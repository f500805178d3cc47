"""Whatever an administrator lacks is found, and what is advised against it mends it."""

import re
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from control_plane.adapters import server_probe
from control_plane.adapters.administrator import administrator_script
from control_plane.adapters.postgres_server import Connection
from control_plane.domain.errors import Invalid
from control_plane.domain.preflight import assess
from control_plane.domain.preflight_facts import Check, Profile
from tests.integration.tenant_server.postgres_fixture import (
    LIMITED,
    TenantServer,
    running_server,
)

# What is taken away, and the finding that then says so.
TAKEN = {
    f"ALTER ROLE {LIMITED} NOCREATEDB": "administrator",
    f"ALTER ROLE {LIMITED} NOCREATEROLE": "administrator",
    f"ALTER ROLE {LIMITED} NOREPLICATION": "administrator_moves",
    f"REVOKE pg_create_subscription FROM {LIMITED}": "administrator_moves",
    "REVOKE EXECUTE ON FUNCTION pg_replication_origin_advance(text, pg_lsn) "
    f"FROM {LIMITED}": "administrator_moves",
    f"ALTER ROLE {LIMITED} NOBYPASSRLS": "administrator_row_security",
    f"REVOKE SET ON PARAMETER temp_file_limit FROM {LIMITED}": "administrator_settings",
    f"REVOKE SET ON PARAMETER lc_messages, lo_compat_privileges FROM {LIMITED}": (
        "administrator_settings"
    ),
    "REVOKE EXECUTE ON FUNCTION pg_create_restore_point(text) "
    f"FROM {LIMITED}": "administrator_restore_points",
    f"REVOKE pg_monitor FROM {LIMITED}": "administrator_sessions",
    f"REVOKE pg_signal_backend FROM {LIMITED}": "administrator_sessions",
    "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC": "public_databases",
    "CREATE ROLE t_00000000000000000000000000_owner": "administrator_inherits",
}
OWN = ("administrator", "provisioner", "public_databases")
_STATEMENT = re.compile(r"(?:ALTER ROLE|GRANT|REVOKE) [^;]+")
_ELSEWHERE = re.compile(r" \(Amazon[^)]*\)")


@pytest.fixture(scope="module")
def server() -> Iterator[TenantServer]:
    with running_server(18, limited=True) as running:
        yield running


@pytest.fixture
async def owner(server: TenantServer) -> AsyncIterator[Connection]:
    """A superuser; afterwards everything is given again."""
    connection = await server.superuser()
    yield connection
    await connection.execute("DROP ROLE IF EXISTS t_00000000000000000000000000_owner")
    await connection.execute(administrator_script(LIMITED))
    await connection.close()


async def findings(server: TenantServer) -> list[Check]:
    facts = await server_probe.probe(server.address())
    checks = assess(facts, Profile("disable", 20))
    return [check for check in checks if check.level != "ok" and check.name.startswith(OWN)]


async def test_one_that_is_as_it_should_be_has_no_findings(server: TenantServer) -> None:
    assert await findings(server) == []


@pytest.mark.parametrize("taken", TAKEN)
async def test_what_is_lacking_is_found_and_the_remedy_mends_it(
    server: TenantServer, owner: Connection, taken: str
) -> None:
    await owner.execute(taken)
    (finding,) = await findings(server)
    assert finding.name == TAKEN[taken]
    remedy = finding.remedy or ""
    statements = _STATEMENT.findall(_ELSEWHERE.sub("", remedy))
    if finding.name == "administrator_inherits":
        assert "tenantry servers administrator-sql" in remedy
        statements = [administrator_script(LIMITED)]
    assert statements
    for statement in statements:
        await owner.execute(statement)
    assert await findings(server) == []


async def test_the_statements_may_be_run_again_and_make_no_superuser(
    server: TenantServer, owner: Connection
) -> None:
    for _ in range(2):
        await owner.execute(administrator_script(LIMITED))
    admin = await server.admin()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute("COPY (SELECT 1) TO PROGRAM 'true'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute(f"ALTER ROLE {LIMITED} SUPERUSER")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute("GRANT pg_execute_server_program TO CURRENT_USER")
    await admin.close()


@pytest.mark.parametrize("name", ["", 'a"; DROP ROLE b', "$body$", "a\nb", "x" * 64])
def test_a_name_that_could_end_a_statement_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="letters, digits"):
        administrator_script(name)
