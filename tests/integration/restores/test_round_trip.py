"""What comes out of a backup is what went in, whoever made it and on whichever server it lands."""

import asyncio
import re
from concurrent.futures import Future
from pathlib import Path
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from control_plane.adapters import scratch_examination
from control_plane.adapters.archive_toc import Contents, read_contents
from control_plane.adapters.backup_object import fetch, plain
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.schema_mark import read_mark
from control_plane.adapters.scratch_examination import Examination
from control_plane.adapters.tenant_schema import verify_tenant_database
from control_plane.domain.backups import differences
from tests.integration.restores.restoring import (
    Backup,
    back_up,
    drop,
    load_into,
    restore,
    scratch_for,
    serve,
)
from tests.integration.tenant_server.clinic import (
    DENIED,
    REVISION,
    Clinic,
    Place,
    provision,
)
from tests.integration.tenant_server.clinic_rows import acting, add

WAYS = [(15, 15), (18, 18), (15, 18)]
# What Postgres words anew when it reads its own words: see sql/schema_definition.sql.
ITEM = re.compile(r"\(('[^']*'::character varying)\)::text")
LIST = re.compile(r"\((ARRAY\['[^\]]*\])\)::text\[\]")
METADATA = """
SELECT format('%s: %s', oid::regclass, unnest(relacl::text[] || relowner::regrole::text))
  FROM pg_class WHERE relnamespace = 'cp_meta'::regnamespace AND relkind = 'r'
UNION ALL
SELECT format('%s: %s', nspname, unnest(nspacl::text[] || nspowner::regrole::text))
  FROM pg_namespace WHERE nspname = 'cp_meta'
UNION ALL
SELECT format('%s: %s', oid::regprocedure, proacl) FROM pg_proc
 WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^lo_'
"""
WHO_MAY = """
SELECT array_agg(DISTINCT pg_get_userbyid(e.grantee)::text)
  FROM pg_database d CROSS JOIN LATERAL aclexplode(datacl) AS e WHERE datname = current_database()
"""
# Large objects are listed in another way since 17, and this one belongs to another database.
UNEQUAL = re.compile(r"BLOB|DATABASE|TABLE DATA.*identity")


async def schema_text(place: Place, database: str) -> list[str]:
    """The lines of a plain dump of everything but the rows of ``cp_meta``, in no order."""
    server = place.server
    process = await asyncio.create_subprocess_exec(
        str(server.bin / "pg_dump"),
        "--exclude-table-data=cp_meta.*",
        database,
        stdout=asyncio.subprocess.PIPE,
        env={
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": server.address().user,
            "PGPASSWORD": server.password.reveal(),
        },
    )
    text, _ = await process.communicate()
    assert process.returncode == 0
    lines = (line for line in text.decode().splitlines() if "restrict " not in line)
    return sorted(LIST.sub(r"\1", ITEM.sub(r"\1", line)) for line in lines)


def contents_of(backup: Backup, folder: Path) -> Contents:
    spool = folder / f"spool-{uuid4().hex}"
    fetch(backup.store, backup.manifest, backup.key, spool)
    return read_contents(plain(spool, backup.manifest, backup.key))[0]


def entries(contents: Contents) -> set[str]:
    return {
        f"{entry.words} of {entry.owner}"
        for entry in contents.entries
        if not UNEQUAL.search(f"{entry.kind} {entry.name}")
    }


@pytest.mark.parametrize(("source", "target"), WAYS)
async def test_everything_comes_back(
    places: dict[int, Place],
    filled: dict[int, Clinic],
    store: FileStore,
    tmp_path: Path,
    source: int,
    target: int,
) -> None:
    clinic = filled[source]
    backup = await back_up(clinic, store)
    scratch = await restore(backup, places[target], tmp_path)
    found = await scratch.content()
    assert differences(backup.manifest.content, found) == []
    assert found.digest == backup.manifest.content.digest
    assert found.large_objects.rows == 3
    async with scratch.inside() as inside:
        examined = await scratch_examination.examine(inside, backup.manifest, backup.roles)
        assert examined == Examination([], checked=True)
        mark = await read_mark(inside)
    if source == target:
        assert await schema_text(scratch.place, scratch.database) == await schema_text(
            clinic.place, clinic.database
        )
        async with clinic.inside() as inside:
            assert await read_mark(inside) == mark
    # What was restored can be backed up, and its archive has the same contents.
    await serve(scratch, backup.roles, backup.roles.key)
    again = await back_up(scratch.clinic(clinic.password), store)
    first, second = (contents_of(one, tmp_path) for one in (backup, again))
    assert entries(first) == entries(second)
    assert len(entries(first)) > 400
    await drop(scratch)


@pytest.mark.parametrize(("source", "target"), WAYS)
async def test_a_restored_clinic_is_a_clinic(
    places: dict[int, Place], store: FileStore, tmp_path: Path, source: int, target: int
) -> None:
    clinic = await provision(places[source])
    app = await clinic.app()
    async with acting(app):
        for _ in range(3):
            await add(app, "bookings.review")
    await app.close()
    backup = await back_up(clinic, store)
    scratch = await restore(backup, places[target], tmp_path)
    await serve(scratch, backup.roles, backup.roles.key)
    identity = msgspec.structs.replace(
        clinic.identity, system_identifier=scratch.place.system_identifier
    )
    async with scratch.inside() as inside:
        await verify_tenant_database(inside, clinic.roles, identity, REVISION)
        assert await inside.fetchval("SELECT count(*) FROM bookings.review") == 3
    # As if it had been provisioned here.
    native = await provision(places[target])
    restored = scratch.clinic(clinic.password)
    assert await grants_of_metadata(restored) == await grants_of_metadata(native)


async def grants_of_metadata(clinic: Clinic) -> set[str]:
    """Who may do what with ``cp_meta``, and with the functions that make large objects."""
    async with clinic.inside() as inside:
        rows = await inside.fetch(METADATA)
    return {row[0].replace(clinic.roles.prefix, "t") for row in rows}


async def test_only_the_loader_may_enter_and_then_nobody(
    place: Place, filled: dict[int, Clinic], store: FileStore, tmp_path: Path
) -> None:
    clinic = filled[place.server.version]
    backup = await back_up(clinic, store)
    scratch = scratch_for(backup, place, tmp_path)
    loop = asyncio.get_running_loop()
    looks: list[Future[str | None]] = []

    def look(_: str) -> None:
        coming = refusal(clinic, scratch.database)
        looks.append(asyncio.run_coroutine_threadsafe(coming, loop))

    await load_into(scratch, look)
    refused = [await asyncio.wrap_future(one) for one in looks]
    assert len(refused) >= 2
    assert {*refused, await refusal(clinic, scratch.database)} == {DENIED}
    async with scratch.inside() as inside:
        assert await inside.fetchval("SELECT to_regrole($1) IS NULL", scratch.loader)
        assert await inside.fetchval(WHO_MAY) == ["cp_dbowner"]
    await serve(scratch, backup.roles, backup.roles.key)
    app = await clinic.app(scratch.database)
    assert await app.fetchval("SELECT current_database()") == scratch.database
    await app.close()
    await drop(scratch)


async def refusal(clinic: Clinic, database: str) -> str | None:
    """The SQLSTATE with which the application is kept out of the database."""
    try:
        connection = await clinic.app(database)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    await connection.close()
    return None


async def test_views_are_filled_if_they_were(
    place: Place, filled: dict[int, Clinic], store: FileStore, tmp_path: Path
) -> None:
    backup = await back_up(filled[place.server.version], store)
    scratch = await restore(backup, place, tmp_path)
    async with scratch.inside() as inside:
        await inside.execute('SET search_path = "Every.thing"')
        assert await inside.fetchval("SELECT visits FROM counted_again") == 2
        # Its owner is bound by the policies of the table, and sees what it saw.
        assert await inside.fetchval("SELECT count FROM over_secured") == 0
        populated = await inside.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'm' AND NOT relispopulated"
        )
        assert [row["relname"] for row in populated] == ["unfilled"]
        # Statistics are there before the first query comes.
        assert await inside.fetchval(
            "SELECT bool_and(reltuples > 0) FROM pg_class "
            "WHERE relname IN ('every_type', 'visit', 'measure_2023')"
        )
    await drop(scratch)


async def test_sequences_go_on_where_they_were(
    place: Place, filled: dict[int, Clinic], store: FileStore, tmp_path: Path
) -> None:
    backup = await back_up(filled[place.server.version], store)
    scratch = await restore(backup, place, tmp_path)
    async with scratch.inside() as inside:
        await inside.execute('SET search_path = "Every.thing", public')
        assert await inside.fetchval("SELECT nextval('counting_down')") == 94
        assert await inside.fetchval("SELECT nextval('never_used')") == 1
        assert await inside.fetchval("INSERT INTO every_type DEFAULT VALUES RETURNING id") == 3100
    await drop(scratch)


async def test_a_second_restore_throws_the_first_away(
    place: Place, filled: dict[int, Clinic], store: FileStore, tmp_path: Path
) -> None:
    backup = await back_up(filled[place.server.version], store)
    scratch = await restore(backup, place, tmp_path)
    async with scratch.inside() as inside:
        await inside.execute('CREATE TABLE public.stray (); DROP TABLE "Every.thing".child')
    await load_into(scratch)
    assert differences(backup.manifest.content, await scratch.content()) == []
    assert await drop(scratch)
    assert not await drop(scratch)
