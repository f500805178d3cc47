"""A tenant's roles and database: logins that open and close, safe orders, the wrong server."""

from uuid import uuid4

import asyncpg
import pytest

from control_plane.adapters import scram
from control_plane.adapters.administrator import abilities
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.template_database import build_template
from control_plane.adapters.tenant_database import (
    Identity,
    create_tenant_database,
    drop_tenant_database,
    read_identity,
    write_identity,
)
from control_plane.adapters.tenant_roles import (
    close_login,
    drop_role_set,
    ensure_role_set,
    inspect_logins,
    open_login,
    terminate_login_sessions,
    wanted_connection_limit,
    wanted_settings,
)
from control_plane.adapters.tenant_schema import verify_tenant_database
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import ObjectInUse, SchemaMismatch, ServerRefused, TenantMismatch
from control_plane.domain.names import RoleSet, database_name
from tests.integration.tenant_server.clinic import (
    GONE,
    LIMITS,
    REVISION,
    TEMPLATES,
    Clinic,
    Place,
    provision,
    unrecorded,
)


async def test_login_facts_show_every_drift(
    clinics: list[Clinic], administrator: Connection
) -> None:
    """S-06: a login may change its own password and settings; we see it and can put it back."""
    clinic = clinics[0]
    login, unused = clinic.roles.logins
    verifier = scram.verifier(clinic.password)
    await open_login(administrator, login, verifier, LIMITS)
    facts = await inspect_logins(administrator, (*clinic.roles.logins, "t_nobody"))
    assert set(facts) == {login, unused}
    clean = facts[login]
    assert (clean.can_login, facts[unused].can_login) == (True, False)
    may = await abilities(administrator)
    shown = verifier if may.superuser else None
    assert (clean.verifier, facts[unused].verifier) == (shown, None)
    wanted = wanted_settings(LIMITS, may)
    assert clean.settings == facts[unused].settings == wanted
    assert clean.connection_limit == wanted_connection_limit(LIMITS) == LIMITS.connections
    assert (clean.privileged, clean.member_of) == (
        False,
        (clinic.roles.app, clinic.roles.reader),
    )
    assert clean.database_settings == ()

    app = await clinic.app()
    await app.execute(f"ALTER ROLE {login} SET statement_timeout = 0")
    await app.execute(f"ALTER ROLE {login} IN DATABASE {clinic.database} SET work_mem = '1GB'")
    await app.execute(f"ALTER ROLE {login} PASSWORD 'mine'")
    await app.close()
    await administrator.execute(f"ALTER ROLE {login} CREATEDB")
    drifted = (await inspect_logins(administrator, [login]))[login]
    assert "statement_timeout=0" in drifted.settings - wanted_settings(
        LIMITS, await abilities(administrator)
    )
    assert drifted.database_settings == (f"{clinic.database}: work_mem=1GB",)
    assert not may.superuser or not scram.matches(clinic.password, drifted.verifier)
    assert drifted.privileged

    await open_login(administrator, login, verifier, LIMITS)
    assert (await inspect_logins(administrator, [login]))[login] == clean


async def test_the_limits_hold_in_a_session_of_the_login(clinics: list[Clinic]) -> None:
    connection = await clinics[0].app()
    shown = {
        name: await connection.fetchval("SELECT setting FROM pg_settings WHERE name = $1", name)
        for name in ("statement_timeout", "lock_timeout", "temp_file_limit", "search_path")
    }
    assert shown == {
        "statement_timeout": str(LIMITS.statement_timeout_ms),
        "lock_timeout": str(LIMITS.lock_timeout_ms),
        "temp_file_limit": str(LIMITS.temp_file_limit_mb * 1024),
        "search_path": "public",
    }
    await connection.close()


async def test_making_the_roles_again_leaves_an_open_login_open(
    clinics: list[Clinic], administrator: Connection
) -> None:
    clinic = clinics[1]
    await ensure_role_set(administrator, clinic.roles, LIMITS)
    await (await clinic.app()).close()


async def test_a_closed_login_is_out_with_all_its_sessions(
    clinics: list[Clinic], administrator: Connection
) -> None:
    clinic = clinics[2]
    idle, working = await clinic.app(), await clinic.app()
    transaction = working.transaction()
    await transaction.start()
    await working.fetchval("SELECT count(*) FROM patients.patient")
    for ended in (2, 0):
        await close_login(administrator, clinic.roles.login_a)
        assert await terminate_login_sessions(administrator, clinic.roles.logins) == ended
    for connection in (idle, working):
        with pytest.raises(GONE):
            await connection.fetchval("SELECT 1")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await clinic.app()
    await open_login(administrator, clinic.roles.login_a, scram.verifier(clinic.password), LIMITS)
    await (await clinic.app()).close()


async def test_closing_a_login_that_does_not_exist_is_no_error(administrator: Connection) -> None:
    await close_login(administrator, RoleSet(uuid4()).login_a)


async def test_an_identity_cannot_be_taken_over(clinics: list[Clinic]) -> None:
    clinic = clinics[0]
    async with clinic.inside() as connection:
        with pytest.raises(TenantMismatch):
            await write_identity(connection, uuid4(), 2, "primary")
        with pytest.raises(TenantMismatch):
            await write_identity(connection, clinic.roles.key, 0, "primary")
        assert await read_identity(connection) == clinic.identity
        with pytest.raises(TenantMismatch, match="generation=7"):
            await verify_tenant_database(
                connection,
                clinic.roles,
                Identity(clinic.roles.key, 7, "primary", clinic.place.system_identifier),
                REVISION,
            )


async def test_nothing_is_dropped_on_the_wrong_server(
    clinics: list[Clinic], administrator: Connection
) -> None:
    """S-10: two servers swapped their ports."""
    clinic = clinics[0]
    wrong = clinic.place.system_identifier + 1
    template = clinic.place.template
    with pytest.raises(TenantMismatch):
        await drop_tenant_database(administrator, clinic.database, wrong)
    with pytest.raises(TenantMismatch):
        await drop_role_set(administrator, clinic.roles, wrong)
    with pytest.raises(TenantMismatch):
        await create_tenant_database(administrator, clinic.database, template, clinic.roles, wrong)
    with pytest.raises(TenantMismatch):
        await build_template(
            clinic.place.server.address(),
            template,
            TEMPLATES.current(DEFAULT_TEMPLATE),
            wrong,
            unrecorded,
        )
    await (await clinic.app()).close()


async def test_a_template_is_never_handed_out_or_dropped(
    place: Place, administrator: Connection
) -> None:
    roles = RoleSet(uuid4())
    await ensure_role_set(administrator, roles, LIMITS)
    with pytest.raises(SchemaMismatch, match="is a template"):
        await create_tenant_database(
            administrator, place.template, place.template, roles, place.system_identifier
        )
    with pytest.raises(SchemaMismatch, match="is a template"):
        await drop_tenant_database(administrator, place.template, place.system_identifier)
    await drop_role_set(administrator, roles, place.system_identifier)


async def test_dropping_needs_the_right_order_and_may_be_repeated(
    place: Place, administrator: Connection
) -> None:
    clinic = await provision(place)
    with pytest.raises(ObjectInUse, match=clinic.database):
        await drop_role_set(administrator, clinic.roles, place.system_identifier)
    app = await clinic.app()
    async with clinic.inside() as connection:
        await connection.execute("SELECT pg_create_logical_replication_slot('mover', 'pgoutput')")
    with pytest.raises(ObjectInUse, match="replication slot mover"):
        await drop_tenant_database(administrator, clinic.database, place.system_identifier)
    await administrator.execute("SELECT pg_drop_replication_slot('mover')")
    for there in (True, False):
        dropped = await drop_tenant_database(
            administrator, clinic.database, place.system_identifier
        )
        assert dropped is there
        await drop_role_set(administrator, clinic.roles, place.system_identifier)
    with pytest.raises(GONE):
        await app.fetchval("SELECT 1")
    left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE $1"
    assert await administrator.fetchval(left, f"{clinic.roles.prefix}%") == 0


async def test_an_unknown_template_is_an_error_that_leaves_nothing(
    place: Place, administrator: Connection
) -> None:
    roles = RoleSet(uuid4())
    await ensure_role_set(administrator, roles, LIMITS)
    with pytest.raises(ServerRefused, match="tpl_0"):
        await create_tenant_database(
            administrator, database_name(roles.key), "tpl_0", roles, place.system_identifier
        )
    await drop_role_set(administrator, roles, place.system_identifier)
