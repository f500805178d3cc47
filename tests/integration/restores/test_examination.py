"""What is wrong with a restored database is found before it is let near a route."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.adapters import scratch_examination, tenant_roles
from control_plane.adapters.object_stores.files import FileStore
from control_plane.domain.names import RoleSet
from tests.integration.restores.restoring import Scratch, back_up, drop, restore
from tests.integration.tenant_server.clinic import LIMITS, Place, provision

TABLE = """
CREATE FUNCTION public.shown(value integer) RETURNS integer LANGUAGE sql IMMUTABLE
    AS 'SELECT value';
REVOKE EXECUTE ON FUNCTION public.shown(integer) FROM PUBLIC;
CREATE TABLE public.sample (id integer);
INSERT INTO public.sample SELECT generate_series(1, 2000);
CREATE INDEX sample_shown ON public.sample (public.shown(id));
"""


@pytest.fixture
async def scratch(place: Place, store: FileStore, tmp_path: Path) -> AsyncIterator[Scratch]:
    """A restored database with a table and an index over a function."""
    clinic = await provision(place)
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}")
        await inside.execute(TABLE)
    restored = await restore(await back_up(clinic, store), place, tmp_path)
    yield restored
    await drop(restored)


async def problems(scratch: Scratch) -> list[str]:
    async with scratch.inside() as inside:
        found = await scratch_examination.examine(
            inside, scratch.backup.manifest, scratch.backup.roles
        )
        assert found.checked
        # The session is as it was, and nothing was left behind.
        assert await inside.fetchval("SELECT current_user = session_user")
        left = await inside.fetchval(
            "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck' "
            "AND extnamespace = 'pg_catalog'::regnamespace"
        )
        assert left == 0
    return found.problems


async def test_a_sound_database_has_no_problems(scratch: Scratch) -> None:
    assert await problems(scratch) == []


async def test_an_index_that_disagrees_with_its_table(scratch: Scratch) -> None:
    async with scratch.inside() as inside:
        await inside.execute(f"SET ROLE {scratch.backup.roles.owner}")
        await inside.execute(
            "CREATE OR REPLACE FUNCTION public.shown(value integer) RETURNS integer "
            "LANGUAGE sql IMMUTABLE AS 'SELECT value + 1000000'"
        )
    schema, damage = await problems(scratch)
    assert schema.startswith("the schema is not the one of the backup")
    assert damage.startswith("public.sample_shown: heap tuple")
    assert "lacks matching index tuple" in damage


async def test_a_damaged_table(places: dict[int, Place], store: FileStore, tmp_path: Path) -> None:
    clinic = await provision(places[18])
    async with clinic.inside() as inside:
        await inside.execute(f"SET ROLE {clinic.roles.owner}")
        await inside.execute(TABLE)
    scratch = await restore(await back_up(clinic, store), places[18], tmp_path)
    async with scratch.inside() as inside:
        await inside.execute("CHECKPOINT")
        data = await inside.fetchval("SELECT current_setting('data_directory')")
        file = await inside.fetchval("SELECT pg_relation_filepath('public.sample')")
        await asyncio.to_thread(scribble, Path(data) / file)
        await inside.execute("CREATE EXTENSION pg_buffercache SCHEMA public")
        await inside.execute("SELECT public.pg_buffercache_evict_relation('public.sample')")
        await inside.execute("DROP EXTENSION pg_buffercache")
    found = await problems(scratch)
    assert [line for line in found if line.startswith("public.sample: ")]
    await drop(scratch)


def scribble(file: Path) -> None:
    """Damage the first pointer to a row in the first page."""
    with file.open("r+b") as page:
        page.seek(24)
        page.write(b"\xff\xff\xff\xff")


@pytest.fixture
async def foreigner(place: Place) -> RoleSet:
    roles = RoleSet(uuid4())
    admin = await place.server.admin()
    await tenant_roles.ensure_role_set(admin, roles, LIMITS)
    await admin.close()
    return roles


FOREIGN = {
    "GRANT CONNECT ON DATABASE {database} TO {login}": "{login} has CONNECT on the database",
    "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC": "PUBLIC has TEMPORARY on the database",
    "ALTER DATABASE {database} OWNER TO {owner}": "the database belongs to {owner}",
    "GRANT {app} TO {login}": "{login} is a member of {app}",
}


@pytest.mark.parametrize("deed", FOREIGN)
async def test_foreign_access_is_told(scratch: Scratch, foreigner: RoleSet, deed: str) -> None:
    values = {
        "database": scratch.database,
        "login": foreigner.login_a,
        "owner": scratch.backup.roles.owner,
        "app": scratch.backup.roles.app,
    }
    admin = await scratch.place.server.admin()
    await admin.execute(deed.format(**values))
    assert FOREIGN[deed].format(**values) in await problems(scratch)
    await admin.close()


async def test_an_invalid_index_is_told(scratch: Scratch) -> None:
    async with scratch.inside() as inside:
        await inside.execute(
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'public.sample_shown'::regclass"
        )
    assert "index public.sample_shown is invalid" in await problems(scratch)


# Functions of the same names, for whoever is not exact about types.
DECOYS = """
CREATE SCHEMA checks;
CREATE EXTENSION amcheck SCHEMA checks;
CREATE FUNCTION checks.bt_index_check(oid, boolean) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION $$decoy$$; END';
CREATE FUNCTION checks.verify_heapam(oid, boolean, boolean, text, bigint, bigint,
    OUT blkno bigint, OUT msg text) LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$decoy$$; END';
"""


async def test_a_tenant_may_have_amcheck_itself(scratch: Scratch) -> None:
    async with scratch.inside() as inside:
        await inside.execute(DECOYS)
    schema, *others = await problems(scratch)
    assert schema.startswith("the schema is not the one of the backup")
    assert others == []
    async with scratch.inside() as inside:
        place = await inside.fetchval(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'amcheck'"
        )
        assert place == "checks"
