"""Revisions that run Python, in processes of their own, on a real server."""

import asyncio
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from control_plane.adapters import scram
from control_plane.adapters.alembic_process import Job, upgrade_many
from control_plane.adapters.postgres_server import ServerAddress
from control_plane.adapters.revision_lint import lint
from control_plane.adapters.revision_lint.volatility import STABLE, VOLATILE
from control_plane.adapters.revisions import Revision, Segment
from control_plane.config import Secret
from tests.integration.tenant_server.postgres_fixture import (
    HOST_NAME,
    WITH_TLS,
    TenantServer,
)

OWNER, LOGIN = "py_owner", "py_login"
ROLES = {"owner": OWNER, "app": OWNER, "auditor": OWNER, "reader": OWNER}
DATABASES = ("py_1", "py_2", "py_3")
SECRET_ROW = "Ada Lovelace"

AWARE_ENV = """
from alembic import context

connection = context.config.attributes["connection"]
connection.exec_driver_sql(f"SET ROLE {context.config.attributes['roles']['owner']}")
connection.commit()
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
"""
# As `alembic init` writes it, without the offline half.
PLAIN_ENV = """
from alembic import context
from sqlalchemy import engine_from_config, pool

section = context.config.get_section(context.config.config_ini_section, {})
engine = engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISIONS = {
    "1": """
        def upgrade():
            op.execute("CREATE TABLE public.person (name text, initials text)")
            op.execute("INSERT INTO public.person (name) VALUES ('Ada Lovelace'), ('Alan Turing')")
        """,
    "2": """
        def upgrade():
            connection = op.get_bind()
            print("a line that is not an answer")
            for (name,) in connection.execute(sa.text("SELECT name FROM public.person")).all():
                initials = "".join(part[0] for part in name.split())
                connection.execute(
                    sa.text("UPDATE public.person SET initials = :i WHERE name = :n"),
                    {"i": initials, "n": name},
                )
        """,
    "3": """
        def upgrade():
            op.execute("CREATE UNIQUE INDEX one_a ON public.person (substr(initials, 1, 1))")
        """,
    "4": """
        def upgrade():
            raise ValueError("cannot use Ada Lovelace")
        """,
    "5": """
        def upgrade():
            op.execute("SELECT pg_sleep(60)")
        """,
    "6": """
        def upgrade():
            import os
            os._exit(3)
        """,
}
# Revisions 3 to 6 fail, each in its own way, from the same place.
BEFORE = {"1": None, "2": "1", "3": "2", "4": "2", "5": "2", "6": "2"}


def write_template(directory: Path, env: str, *, aware: bool) -> Path:
    (directory / "versions").mkdir(parents=True)
    section = "\n[tenantry]\nroles = aware\n" if aware else ""
    ini = f"[alembic]\nscript_location = %(here)s\npath_separator = os\n{section}"
    (directory / "alembic.ini").write_text(ini)
    (directory / "env.py").write_text(env)
    for key, body in REVISIONS.items():
        head = f"revision = {key!r}\ndown_revision = {BEFORE[key]!r}\n"
        text = f"import sqlalchemy as sa\nfrom alembic import op\n{head}{textwrap.dedent(body)}"
        (directory / "versions" / f"{key}.py").write_text(text)
    return directory


@pytest.fixture(params=["aware", "plain"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    aware = request.param == "aware"
    return write_template(tmp_path / "t", AWARE_ENV if aware else PLAIN_ENV, aware=aware)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_template(tmp_path / "t", PLAIN_ENV, aware=False)


@pytest.fixture(scope="module")
def password() -> Secret:
    # A percent sign is what a Config and a URL could trip over.
    return Secret(scram.new_password().reveal() + "%/@")


@pytest.fixture
async def address(tenant_server: TenantServer, password: Secret) -> AsyncIterator[ServerAddress]:
    """The databases with their owner, and a login that may become the owner."""
    server, admin = tenant_server, await tenant_server.admin()
    await admin.execute(f"CREATE ROLE {OWNER}")
    verifier = scram.verifier(password)
    await admin.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{verifier}' IN ROLE {OWNER}")
    for database in DATABASES:
        await admin.execute(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE template0")
        inside = await server.admin(database)
        await inside.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")
        await inside.close()
    with_tls = server.version == WITH_TLS
    yield ServerAddress(
        host=HOST_NAME,
        hostaddr="127.0.0.1",
        port=server.port,
        user=LOGIN,
        password=password,
        tls="verify-full" if with_tls else "disable",
        ca_pem=server.ca_pem if with_tls else None,
    )
    for database in DATABASES:
        await admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
    await admin.execute(f"DROP ROLE {LOGIN}")
    await admin.execute(f"DROP ROLE {OWNER}")
    await admin.close()


def jobs(address: ServerAddress, revision: str) -> list[Job]:
    return [Job(address, database, ROLES, revision) for database in DATABASES]


def children() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "control_plane.adapters.alembic_process" in process.cmdline():
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def no_child_stays() -> Iterator[None]:
    yield
    assert children() == []


async def test_rows_are_read_and_written_by_python_in_every_database_as_the_owner(
    directory: Path, address: ServerAddress, tenant_server: TenantServer
) -> None:
    for revision in ("1", "2"):
        results = await upgrade_many(directory, jobs(address, revision))
        assert [(r.database, r.error) for r in results] == [(name, None) for name in DATABASES]
    for database in DATABASES:
        inside = await tenant_server.admin(database)
        rows = await inside.fetch("SELECT initials FROM public.person ORDER BY 1")
        assert [row["initials"] for row in rows] == ["AL", "AT"]
        owners = await inside.fetch(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
        assert [row[0] for row in owners] == [OWNER]
        await inside.close()


async def test_a_failure_is_one_line_without_values_and_stops_nobody_else(
    directory: Path, address: ServerAddress
) -> None:
    await upgrade_many(directory, jobs(address, "2")[:2])
    wanted = [Job(address, "py_1", ROLES, "3"), Job(address, "py_2", ROLES, "4")]
    nowhere = Job(address, "py_missing", ROLES, "1")
    unknown = Job(address, "py_2", ROLES, "no-such-revision")
    last = Job(address, "py_3", ROLES, "2")
    results = await upgrade_many(directory, [*wanted, nowhere, unknown, last], processes=1)
    duplicate, raised, missing, unknown_revision, fine = results
    assert duplicate.sqlstate == "23505"
    assert "could not create unique index" in str(duplicate.error)
    assert raised.error == "ValueError in 4.py line 7"
    assert "py_missing" in str(missing.error)
    assert "no-such-revision" in str(unknown_revision.error)
    assert fine.error is None
    assert SECRET_ROW not in repr(results)
    assert "(A)" not in repr(results)


async def test_a_job_that_hangs_or_kills_its_process_fails_and_the_next_one_runs(
    plain: Path, address: ServerAddress
) -> None:
    await upgrade_many(plain, jobs(address, "2")[:2])
    wanted = [
        Job(address, "py_1", ROLES, "5"),
        Job(address, "py_2", ROLES, "6"),
        Job(address, "py_3", ROLES, "2"),
    ]
    slow, dead, fine = await upgrade_many(plain, wanted, processes=1, timeout_seconds=6)
    assert slow.error == "it did not end within 6 s; its process was killed"
    assert dead.error == "the process that ran it ended by itself (exit code 3)"
    assert fine.error is None


async def test_the_server_ends_what_takes_too_long(directory: Path, address: ServerAddress) -> None:
    await upgrade_many(directory, jobs(address, "2")[:1])
    impatient = Job(address, "py_1", ROLES, "5", statement_timeout=200)
    (result,) = await upgrade_many(directory, [impatient])
    assert result.sqlstate == "57014"


async def test_cancelling_kills_the_processes_which_show_no_secret(
    plain: Path,
    address: ServerAddress,
    password: Secret,
    tenant_server: TenantServer,
) -> None:
    await upgrade_many(plain, jobs(address, "2")[:1])
    running = asyncio.create_task(upgrade_many(plain, [Job(address, "py_1", ROLES, "5")]))
    admin = await tenant_server.admin()
    asleep = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(20):
        while not await admin.fetchval(asleep):
            await asyncio.sleep(0.05)
    (child,) = children()
    seen = repr(child.cmdline()) + repr(child.environ())
    assert password.reveal() not in seen
    assert "TENANTRY_" not in seen
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not child.is_running()
    async with asyncio.timeout(10):
        while await admin.fetchval(asleep):
            await asyncio.sleep(0.05)
    await admin.close()


async def test_the_lists_of_unstable_functions_are_those_of_the_server(
    tenant_server: TenantServer,
) -> None:
    """Of the names this server knows, none has an immutable overload."""
    admin = await tenant_server.admin()
    rows = await admin.fetch(
        "SELECT proname::text, array_agg(DISTINCT provolatile::text) AS kinds FROM pg_proc "
        "WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY 1"
    )
    await admin.close()
    kinds = {row["proname"]: set(row["kinds"]) for row in rows}
    assert {"now", "gen_random_uuid", "current_setting"} <= kinds.keys()
    assert {name for name in VOLATILE if kinds.get(name, {"v"}) != {"v"}} == set()
    assert {name for name in STABLE if "i" in kinds.get(name, set())} == set()


# What the lint lets pass must leave table and index files alone; what it refuses rewrites here.
CHANGES = {
    "ALTER v TYPE varchar(9)": False,
    "ALTER v TYPE varchar": False,
    "ALTER v TYPE text": False,
    "ALTER t TYPE varchar": False,
    "ALTER n TYPE numeric(12, 2)": False,
    "ALTER n TYPE numeric": False,
    "ALTER z TYPE timestamptz(6)": False,
    "ADD a timestamptz DEFAULT now()": False,
    "ADD b int NOT NULL DEFAULT 0": False,
    "ALTER n TYPE numeric(12, 4)": True,
    "ALTER v TYPE varchar(3)": True,
    "ALTER i TYPE bigint": True,
    "ADD c uuid DEFAULT gen_random_uuid()": True,
    "ADD d bigserial": True,
    "ADD e int GENERATED ALWAYS AS (i + 1) STORED": True,
    "SET UNLOGGED": True,
}
TABLE = "CREATE TABLE public.w (n numeric(10, 2), v varchar(5), t text, z timestamptz(3), i int)"
INDEX = "CREATE INDEX w_all ON public.w (v, t, n, z)"


@pytest.mark.parametrize(("change", "rewrites"), CHANGES.items())
async def test_the_lint_knows_what_rewrites_a_table_on_this_server(
    tenant_server: TenantServer, change: str, *, rewrites: bool
) -> None:
    files = "SELECT pg_relation_filenode('public.w'), pg_relation_filenode('public.w_all')"
    statement = f"ALTER TABLE public.w {change}"
    path = [_revision("1", TABLE, INDEX), _revision("2", statement)]
    assert bool(lint(path, frozenset({"1"}))) is rewrites
    admin = await tenant_server.admin()
    transaction = admin.transaction()
    await transaction.start()
    for text in (TABLE, INDEX, "INSERT INTO public.w VALUES (1, 'abc', 'x', now(), 1)"):
        await admin.execute(text)
    before = await admin.fetchrow(files)
    await admin.execute(statement)
    after = await admin.fetchrow(files)
    await transaction.rollback()
    await admin.close()
    assert (before != after) is rewrites


def _revision(key: str, *statements: str) -> Revision:
    return Revision(
        id=key,
        down=None,
        title=key,
        privileged=False,
        runs_python=False,
        segments=(Segment(statements, transactional=True),),
        overrides={},
    )
