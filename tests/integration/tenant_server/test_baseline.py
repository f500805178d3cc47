"""The baseline of a tenant database keeps the promises of its design (security.md §2)."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.adapters.postgres_server import Connection
from tests.integration.tenant_server.clinic import REVISION, TEMPLATE, Clinic, sqlstate
from tests.integration.tenant_server.clinic_rows import acting, add
from tests.integration.tenant_server.postgres_fixture import ADMIN, TenantServer

TABLES = """
SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname IN ('public', 'providers', 'patients', 'bookings')
   AND c.relname <> 'alembic_version'
"""
FOREIGN_KEYS = """
SELECT conrelid::regclass || ' ' || conname AS name, confdeltype, EXISTS (
           SELECT FROM pg_index i
            WHERE i.indrelid = conrelid AND i.indpred IS NULL AND i.indisvalid
              AND (i.indkey::smallint[])[0:cardinality(conkey) - 1] @> conkey) AS indexed
  FROM pg_constraint WHERE contype = 'f'
"""


@pytest.fixture
async def inside(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    async with clinics[0].inside() as connection:
        yield connection


@pytest.fixture
async def app(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    connection = await clinics[0].app()
    yield connection
    await connection.close()


async def test_every_table_follows_the_pattern(inside: Connection) -> None:
    tables = await inside.fetch(TABLES)
    assert len(tables) >= 10
    for table in tables:
        columns = {
            row["attname"]: (row["type"], row["value"], row["attnotnull"])
            for row in await inside.fetch(
                """SELECT attname, format_type(atttypid, NULL) AS type, attnotnull,
                          pg_get_expr(adbin, adrelid) AS value
                     FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                    WHERE attrelid = $1 AND attnum > 0""",
                table["oid"],
            )
        }
        assert columns["id"] == ("uuid", "gen_random_uuid()", True), table["name"]
        times = ("timestamp with time zone", "now()", True)
        assert columns["created_at"] == columns["updated_at"] == times, table["name"]
        assert columns["deleted_at"] == ("timestamp with time zone", None, False), table["name"]


async def test_every_foreign_key_restricts_and_is_indexed(inside: Connection) -> None:
    keys = await inside.fetch(FOREIGN_KEYS)
    assert len(keys) >= 10
    assert [key["name"] for key in keys if key["confdeltype"] != b"r"] == []
    assert [key["name"] for key in keys if not key["indexed"]] == []


async def test_the_upcoming_appointments_of_a_provider_come_from_the_partial_index(
    inside: Connection,
) -> None:
    """With a generic plan too: the constants of the predicate are literals in the query."""
    transaction = inside.transaction()
    await transaction.start()
    await inside.execute(
        "SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan"
    )
    await inside.execute(
        """PREPARE upcoming (uuid) AS SELECT id FROM bookings.appointment
            WHERE provider_id = $1 AND status = 'confirmed' AND deleted_at IS NULL
              AND appointment_at > now() ORDER BY appointment_at LIMIT 20"""
    )
    plan = "\n".join(
        row[0] for row in await inside.fetch(f"EXPLAIN EXECUTE upcoming ('{uuid4()}')")
    )
    await inside.execute("DEALLOCATE upcoming")
    await transaction.rollback()
    assert "using appointment_upcoming" in plan
    assert "Sort" not in plan


async def test_updated_at_moves_only_when_something_changed(app: Connection) -> None:
    new = "INSERT INTO public.city (country_code, region, name) VALUES ('CH', 'ZH', $1) RETURNING *"
    async with acting(app):
        row = await app.fetchrow(new, str(uuid4()))
    assert row is not None
    async with acting(app):
        same = "UPDATE public.city SET name = name WHERE id = $1 RETURNING updated_at"
        assert await app.fetchval(same, row["id"]) == row["updated_at"]
        change = "UPDATE public.city SET region = 'BE' WHERE id = $1 RETURNING updated_at"
        assert await app.fetchval(change, row["id"]) > row["updated_at"]


async def test_nobody_deletes_a_row_not_even_the_owner(
    inside: Connection, clinics: list[Clinic], app: Connection
) -> None:
    async with acting(app):
        await add(app, "public.specialty")
    assert await sqlstate(app, "DELETE FROM public.specialty") == "42501"
    await inside.execute(f"SET ROLE {clinics[0].roles.owner}")
    assert await sqlstate(inside, "DELETE FROM public.specialty") == "23001"
    await inside.execute("RESET ROLE")


async def test_it_works_with_plain_alembic(
    tenant_server: TenantServer, administrator: Connection
) -> None:
    database, app = "developer_database", "developer_app"
    await administrator.execute(f"CREATE DATABASE {database}")
    await administrator.execute(f"CREATE ROLE {app}")
    url = f"postgresql+psycopg://{ADMIN}@127.0.0.1:{tenant_server.port}/{database}"
    password = tenant_server.password.reveal()
    for _ in range(2):
        code, err = await alembic("-x", f"url={url}", "-x", f"app={app}", password=password)
        assert code == 0, err
    inside = await tenant_server.admin(database)
    assert await inside.fetchval("SELECT version_num FROM public.alembic_version") == REVISION
    can = "SELECT has_column_privilege($1, 'patients.patient', $2, 'UPDATE')"
    assert await inside.fetchval(can, app, "name_ciphertext")
    assert not await inside.fetchval(can, app, "deleted_at")
    await inside.close()
    await administrator.execute(f"DROP DATABASE {database}")
    await administrator.execute(f"DROP ROLE {app}")


async def test_plain_alembic_says_what_it_needs() -> None:
    code, err = await alembic(password="")
    assert code == 1
    assert err.strip() == ("name the database: alembic -x url=postgresql+psycopg://… upgrade head")


async def alembic(*arguments: str, password: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("alembic")),
        *arguments,
        "upgrade",
        "head",
        cwd=TEMPLATE,
        env={"PGPASSWORD": password, "PYTHONUTF8": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    return process.returncode, err.decode()
