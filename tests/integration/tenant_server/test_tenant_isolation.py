"""What a tenant's logins can and cannot do, on real servers."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.tenant_database import create_tenant_database, drop_tenant_database
from control_plane.adapters.tenant_roles import drop_role_set, ensure_role_set
from control_plane.adapters.tenant_schema import verify_tenant_database
from control_plane.domain.names import RoleSet, database_name
from tests.integration.tenant_server.clinic import (
    DENIED,
    LIMITS,
    REVISION,
    Clinic,
    Place,
    leased,
    sqlstate,
)
from tests.integration.tenant_server.clinic_rows import acting, add, soft_delete


async def test_every_login_enters_its_own_database_and_no_other(clinics: list[Clinic]) -> None:
    """S-01, direct: the whole matrix, with the databases every server has."""
    doors = [clinic.database for clinic in clinics]
    for clinic in clinics:
        for door in (*doors, "postgres", "template1"):
            if door == clinic.database:
                connection = await clinic.app(door)
                row = await connection.fetchrow("SELECT current_user, current_database()")
                assert tuple(row or ()) == (clinic.roles.login_a, door)
                await connection.close()
                continue
            with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
                await clinic.app(door)
            assert refused.value.sqlstate == DENIED


async def test_a_database_is_never_open_to_a_stranger_while_it_is_made(
    place: Place, clinics: list[Clinic], administrator: Connection
) -> None:
    """S-02: foreign logins knock all the time while databases are created."""
    made = asyncio.Event()
    answers: list[str] = []
    keys = [uuid4() for _ in range(4)]

    async def knock(stranger: Clinic, key: UUID) -> None:
        while not made.is_set():
            try:
                connection = await stranger.app(database_name(key))
            except asyncpg.PostgresError as error:
                answers.append(error.sqlstate or "unknown")
            else:
                answers.append("entered")
                await connection.close()

    knocking = [asyncio.create_task(knock(stranger, key)) for stranger in clinics for key in keys]
    for key in keys:
        roles = RoleSet(key)
        await ensure_role_set(administrator, roles, LIMITS)
        await create_tenant_database(
            administrator, database_name(key), place.template, roles, place.system_identifier
        )
    await asyncio.sleep(0.1)
    made.set()
    await asyncio.gather(*knocking)
    assert set(answers) <= {"3D000", "55000", DENIED}
    assert {"3D000", DENIED} <= set(answers)
    for key in keys:
        await drop_tenant_database(administrator, database_name(key), place.system_identifier)
        await drop_role_set(administrator, RoleSet(key), place.system_identifier)


FORBIDDEN = {
    "verifiers": "SELECT rolpassword FROM pg_authid",
    "shadow": "SELECT * FROM pg_shadow",
    "files": "SELECT pg_read_file('postgresql.conf')",
    "shell": "COPY bookings.review TO PROGRAM 'cat'",
    "copy to a file": "COPY bookings.review TO '/nowhere/review'",
    "roles": "CREATE ROLE intruder",
    "extensions": "CREATE EXTENSION dblink",
    "schemas": "CREATE SCHEMA mine",
    "tables": "CREATE TABLE public.mine ()",
    "temporary tables": "CREATE TEMPORARY TABLE mine ()",
    "triggers": "ALTER TABLE patients.patient DISABLE TRIGGER ALL",
    "replica role": "SET session_replication_role = replica",
    "spill limit": "SET temp_file_limit = -1",
    "delete": "DELETE FROM patients.patient",
    "truncate": "TRUNCATE patients.patient",
    "drop": "DROP TABLE bookings.review",
    "own the database": "ALTER DATABASE {database} RENAME TO mine",
    "identity": "UPDATE cp_meta.identity SET tenant_id = gen_random_uuid()",
    "forged identity": "INSERT INTO cp_meta.identity (generation) VALUES (9)",
    "revision": "UPDATE public.alembic_version SET version_num = 'x'",
    "large objects": "SELECT lo_create(0)",
    "large objects, the old way": "SELECT lo_creat(-1)",
    "large objects from bytes": "SELECT lo_from_bytea(0, 'x')",
    "large objects from files": "SELECT lo_import('/etc/hostname')",
    "become the owner": "SET ROLE {owner}",
    "become the migrator": "SET ROLE {migrator}",
    "more memberships": "GRANT {owner} TO {login_a}",
    "raise its own limit": "ALTER ROLE {login_a} CONNECTION LIMIT 500",
    "call a helper directly": "SELECT public.refuse_delete()",
}


async def test_an_application_login_can_do_nothing_but_its_work(clinics: list[Clinic]) -> None:
    """S-04: nothing owned, no attribute, every way out of the database ends in 42501."""
    clinic = clinics[0]
    connection = await clinic.app()
    # CREATE DATABASE cannot run in the transaction that sqlstate() rolls back.
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("CREATE DATABASE mine")
    names = {field: getattr(clinic.roles, field) for field in ("owner", "migrator", "login_a")}
    answers = {
        what: await sqlstate(connection, statement.format(database=clinic.database, **names))
        for what, statement in FORBIDDEN.items()
    }
    assert answers == dict.fromkeys(FORBIDDEN, DENIED)
    await connection.close()


async def test_an_application_login_can_do_its_work(clinics: list[Clinic]) -> None:
    connection = await clinics[1].app()
    async with acting(connection):
        specialty = await connection.fetchval(
            "INSERT INTO specialty (name) VALUES ('dermatology') RETURNING id"
        )
        assert isinstance(specialty, UUID)
        condition = await add(connection, "patients.health_condition")
        healed = "UPDATE patients.health_condition SET clinical_status = $1 WHERE id = $2"
        await connection.execute(healed, "resolved", condition)
        assert await soft_delete(connection, "patients.health_condition", condition)
    found = await connection.fetchrow("SELECT tenant_id, state FROM cp_meta.identity")
    assert tuple(found or ()) == (clinics[1].roles.key, "primary")
    await connection.close()


async def test_a_table_the_owner_makes_later_is_read_by_the_app_and_no_more(
    clinics: list[Clinic],
) -> None:
    """The template's default privileges now belong to the tenant's own owner."""
    clinic = clinics[2]
    async with clinic.inside() as connection:
        await connection.execute(f"SET ROLE {clinic.roles.owner}")
        await connection.execute("CREATE TABLE providers.room (id int)")
        await connection.execute(
            "CREATE FUNCTION providers.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        )
    app = await clinic.app()
    assert await sqlstate(app, "SELECT * FROM providers.room") is None
    assert await sqlstate(app, "INSERT INTO providers.room VALUES (1)") == DENIED
    assert await sqlstate(app, "DELETE FROM providers.room") == DENIED
    assert await sqlstate(app, "SELECT providers.f()") == DENIED
    await app.close()
    async with clinic.inside() as connection:
        await verify_tenant_database(connection, clinic.roles, clinic.identity, REVISION)


async def test_the_migrator_works_as_the_owner_only_when_it_says_so(
    clinics: list[Clinic], administrator: Connection
) -> None:
    clinic = clinics[0]
    async with leased(administrator, clinic, clinic.roles.migrator) as connection:
        assert await sqlstate(connection, "SELECT * FROM patients.patient") == DENIED
        await connection.execute(f"SET ROLE {clinic.roles.owner}")
        assert await sqlstate(connection, "CREATE TABLE patients.t ()") is None
        assert await sqlstate(connection, "CREATE SCHEMA laboratory") is None
        assert await sqlstate(connection, "DROP SCHEMA cp_meta CASCADE") == DENIED
        assert await sqlstate(connection, f"SET ROLE {clinic.roles.auditor}") == DENIED


async def test_the_backup_role_reads_its_own_database_and_nothing_more(
    clinics: list[Clinic], administrator: Connection
) -> None:
    clinic, neighbour = clinics[0], clinics[1]
    async with leased(administrator, clinic, clinic.roles.backup) as connection:
        assert await sqlstate(connection, "SELECT * FROM patients.patient") is None
        assert await sqlstate(connection, "SELECT * FROM public.alembic_version") is None
        assert await sqlstate(connection, "SELECT rolpassword FROM pg_authid") == DENIED
        await connection.execute("SET default_transaction_read_only = off")
        write = "INSERT INTO patients.patient (name_ciphertext) VALUES ('')"
        assert await sqlstate(connection, write) == DENIED
    dump = await dump_as_backup(administrator, clinic)
    assert b"CREATE TABLE bookings.appointment" in dump
    assert b"COPY patients.patient" in dump
    assert b"COPY audit.audit_log" in dump
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with leased(administrator, clinic, clinic.roles.backup, neighbour.database):
            pass


async def dump_as_backup(administrator: Connection, clinic: Clinic) -> bytes:
    password, role = scram.new_password(), clinic.roles.backup
    await administrator.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{scram.verifier(password)}'")
    process = await asyncio.create_subprocess_exec(
        str(clinic.place.server.bin / "pg_dump"),
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(clinic.place.server.port),
            "PGUSER": role,
            "PGPASSWORD": password.reveal(),
            "PGDATABASE": clinic.database,
            "PGSSLMODE": "disable",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    await administrator.execute(f"ALTER ROLE {role} NOLOGIN PASSWORD NULL")
    assert process.returncode == 0, err.decode()
    return out
