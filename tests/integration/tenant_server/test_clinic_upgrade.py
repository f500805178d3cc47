"""A clinic of the released baseline, with rows in it, comes to the patterns and keeps its rows."""

# ruff: noqa: S608 - the names in the SQL are constants of these tests

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from control_plane.adapters import scram
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.revisions import bind_roles, compile_path
from control_plane.adapters.tenant_database import drop_tenant_database, open_to_roles
from control_plane.adapters.tenant_roles import drop_role_set, ensure_role_set, open_login
from control_plane.domain.names import RoleSet
from tests.integration.tenant_server.clinic import (
    LIMITS,
    TEMPLATE,
    Clinic,
    Place,
    leased,
    sqlstate,
)
from tests.integration.tenant_server.clinic_rows import MINIMAL, add, soft_delete
from tests.integration.tenant_server.test_clinic_grants import COLUMNS, RIGHTS

Way = Callable[[Clinic, Connection], Awaitable[None]]
BASELINE, PATTERNS = "0001", "0004"
NEW_IN_PATTERNS = "providers.provider_specialty"
# Written while the baseline was all there was: as these tests must find them afterwards.
OLD_COLUMNS = """
SELECT string_agg(format('%I', attname), ', ' ORDER BY attnum) FROM pg_attribute
 WHERE attrelid = $1::text::regclass AND attnum > 0
"""


@asynccontextmanager
async def old_clinic(place: Place, administrator: Connection) -> AsyncIterator[Clinic]:
    """A clinic at the baseline, its login open, dropped at the end."""
    roles, password = RoleSet(uuid4()), scram.new_password()
    clinic = Clinic(place, roles, password)
    await ensure_role_set(administrator, roles, LIMITS)
    await administrator.execute(f"CREATE DATABASE {clinic.database} TEMPLATE template0")
    await open_to_roles(administrator, clinic.database, roles)
    await open_login(administrator, roles.login_a, scram.verifier(password), LIMITS)
    async with clinic.inside() as inside:
        await inside.execute(
            f"ALTER SCHEMA public OWNER TO {roles.owner}; REVOKE ALL ON SCHEMA public FROM PUBLIC"
        )
    await alembic(clinic, BASELINE)
    try:
        yield clinic
    finally:
        await drop_tenant_database(administrator, clinic.database, place.system_identifier)
        await drop_role_set(administrator, roles, place.system_identifier)


async def alembic(clinic: Clinic, target: str) -> None:
    """What an operator would run by hand."""
    server, roles = clinic.place.server, clinic.roles
    address = server.address()
    url = f"postgresql+psycopg://{address.user}@127.0.0.1:{server.port}/{clinic.database}"
    named = [
        part
        for role in ("owner", "app", "auditor", "reader")
        for part in ("-x", f"{role}={getattr(roles, role)}")
    ]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("alembic")),
        *("-x", f"url={url}", *named, "upgrade", target),
        cwd=TEMPLATE,
        env={"PGPASSWORD": address.password.reveal(), "PYTHONUTF8": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def by_hand(clinic: Clinic, _administrator: Connection) -> None:
    await alembic(clinic, PATTERNS)


async def compiled(clinic: Clinic, administrator: Connection) -> None:
    """The SQL that was written down without a connection, as the migrator who became the owner."""
    path = compile_path(TEMPLATE, PATTERNS)
    assert [r.id for r in path if r.runs_python or r.privileged] == []
    async with leased(administrator, clinic, clinic.roles.migrator) as connection:
        await connection.execute(f"SET ROLE {clinic.roles.owner}")
        for segment in (s for revision in path[1:] for s in revision.segments):
            statements = [bind_roles(sql, clinic.roles) for sql in segment.statements]
            assert not [sql for sql in statements if "cp_template" in sql]
            if segment.transactional:
                async with connection.transaction():
                    for sql in statements:
                        await connection.execute(sql)
            else:
                for sql in statements:
                    await connection.execute(sql)


async def fill_baseline(clinic: Clinic) -> dict[str, UUID]:
    """A row of every table as the old application wrote it, and one that it soft-deleted."""
    app = await clinic.app()
    keys = {table: await add(app, table) for table in MINIMAL if table != NEW_IN_PATTERNS}
    keys["dead"] = await add(app, "public.city")
    await app.execute("UPDATE public.city SET deleted_at = now() WHERE id = $1", keys["dead"])
    await app.close()
    return keys


async def contents(inside: Connection, columns: dict[str, str]) -> dict[str, list[str]]:
    return {
        table: [
            str(row[0])
            for row in await inside.fetch(f"SELECT (ROW({listed}))::text FROM {table} ORDER BY id")
        ]
        for table, listed in columns.items()
    }


async def files_of(inside: Connection, tables: list[str]) -> list[int]:
    found = await inside.fetch(
        "SELECT pg_relation_filenode(t) FROM unnest($1::text[]) AS t", tables
    )
    return [row[0] for row in found]


@pytest.mark.parametrize("way", [by_hand, compiled])
async def test_rows_of_the_baseline_stay_and_the_rights_become_those_of_a_new_clinic(
    place: Place, administrator: Connection, way: Way
) -> None:
    async with old_clinic(place, administrator) as clinic:
        keys = await fill_baseline(clinic)
        async with clinic.inside() as inside:
            old = [table for table in MINIMAL if table != NEW_IN_PATTERNS]
            columns = {table: await inside.fetchval(OLD_COLUMNS, table) for table in old}
            rows, files = await contents(inside, columns), await files_of(inside, old)
            await way(clinic, administrator)
            assert await contents(inside, columns) == rows
            # No table was rewritten.
            assert await files_of(inside, old) == files
            await rights_are_those_of_a_new_clinic(inside, clinic.roles)
        await old_rows_live_by_the_new_rules(clinic, keys)


async def rights_are_those_of_a_new_clinic(inside: Connection, roles: RoleSet) -> None:
    found: dict[str, dict[str, str]] = {}
    for row in await inside.fetch(COLUMNS, roles.app, roles.reader):
        if not row["is_view"]:
            found.setdefault(row["relation"], {})[row["attname"]] = row["rights"]
    # The control plane's own table comes with the template database, not with a revision.
    assert found == {table: RIGHTS[table] for table in RIGHTS if table != "cp_meta.identity"}


async def old_rows_live_by_the_new_rules(clinic: Clinic, keys: dict[str, UUID]) -> None:
    app = await clinic.app()
    patient = keys["patients.patient"]
    assert await sqlstate(app, "UPDATE patients.patient SET deleted_at = now()") == "42501"
    assert (
        await app.fetchval("SELECT count(*) FROM public.city_live WHERE id = $1", keys["dead"]) == 0
    )
    assert await app.fetchval("SELECT clinical_status FROM patients.health_condition") == "active"
    assert await app.fetchval("SELECT count(*) FROM reports.provider_revenue") == 1
    with pytest.raises(Exception, match="is deleted or does not exist"):
        await add(app, "providers.provider", city_id=keys["dead"])
    assert await soft_delete(app, "bookings.review", keys["bookings.review"])
    assert not await soft_delete(app, "public.city", keys["dead"])
    await app.execute("UPDATE patients.patient SET phone_blind_index = 'x' WHERE id = $1", patient)
    await app.close()


async def test_both_ways_end_in_the_same_schema(place: Place, administrator: Connection) -> None:
    dumps = []
    for way in (by_hand, compiled):
        async with old_clinic(place, administrator) as clinic:
            await way(clinic, administrator)
            dumps.append(await schema_of(clinic))
    assert "CREATE MATERIALIZED VIEW reports.marketplace_health" in dumps[0]
    assert dumps[0] == dumps[1]


async def schema_of(clinic: Clinic) -> str:
    """What pg_dump writes, with the tenant's name taken out."""
    server = clinic.place.server
    process = await asyncio.create_subprocess_exec(
        *(str(server.bin / "pg_dump"), "--schema-only"),
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": server.address().user,
            "PGPASSWORD": server.password.reveal(),
            "PGDATABASE": clinic.database,
            "PGSSLMODE": "disable",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    # Newer minor versions write \\restrict with a key that is never the same.
    lines = (line for line in out.decode().splitlines() if not line.startswith("\\"))
    return "\n".join(lines).replace(clinic.roles.prefix, "t")
