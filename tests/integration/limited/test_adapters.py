"""What is tried with a superuser, tried with an administrator that is none: the very same tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.tenant_roles import bootstrap_server
from tests.integration.tenant_server import (
    test_audit_upgrade,
    test_tenant_database,
    test_tenant_isolation,
    test_tenant_schema,
)
from tests.integration.tenant_server.clinic import (
    Clinic,
    Place,
    built_template,
    provision,
    system_identifier_of,
)
from tests.integration.tenant_server.postgres_fixture import TenantServer, running_server

_AUDIT, _SCHEMA, _DATABASE = test_audit_upgrade, test_tenant_schema, test_tenant_database
_ISOLATION = test_tenant_isolation
test_audit = _AUDIT.test_the_log_belongs_to_the_auditor_however_it_came
test_schema = _SCHEMA.test_everything_in_the_template_changes_hands_and_nothing_else
test_login = _DATABASE.test_a_closed_login_is_out_with_all_its_sessions
test_drop = _DATABASE.test_dropping_needs_the_right_order_and_may_be_repeated
test_doors = _ISOLATION.test_every_login_enters_its_own_database_and_no_other
test_strangers = _ISOLATION.test_a_database_is_never_open_to_a_stranger_while_it_is_made
test_backup = _ISOLATION.test_the_backup_role_reads_its_own_database_and_nothing_more
test_migrator = _ISOLATION.test_the_migrator_works_as_the_owner_only_when_it_says_so


@pytest.fixture(scope="module")
def tenant_server() -> Iterator[TenantServer]:
    with running_server(18, limited=True) as running:
        yield running


@pytest.fixture(scope="module")
async def place(tenant_server: TenantServer) -> Place:
    admin = await tenant_server.admin()
    await bootstrap_server(admin)
    system_identifier = await system_identifier_of(admin)
    await admin.close()
    return Place(
        tenant_server, await built_template(tenant_server, system_identifier), system_identifier
    )


@pytest.fixture(scope="module")
async def clinics(place: Place) -> list[Clinic]:
    return list(await asyncio.gather(*(provision(place) for _ in range(3))))


@pytest.fixture
async def administrator(tenant_server: TenantServer) -> AsyncIterator[Connection]:
    """The administrator's connection to ``postgres``."""
    connection = await tenant_server.admin()
    assert connection.get_settings().is_superuser == "off"
    yield connection
    await connection.close()
