"""A content differs whenever a row does, and reading it runs nothing that a tenant made."""

from pathlib import Path

import asyncpg
import pytest

from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.sql_text import load
from control_plane.domain.errors import UnexpectedDatabaseError
from tests.integration.backups.dumping import as_owner, content_of, dumped, undone
from tests.integration.tenant_server.clinic import Clinic, Place, provision

COLUMNS = """
SELECT quote_ident(attname) FROM pg_attribute
 WHERE attrelid = 'zoo.types'::regclass AND attnum > 0 AND attname <> 'id' ORDER BY attnum
"""
# Values that compare as equal and are not the same.
TWINS = {
    "numeric": ("1.0", "1.00"),
    "double precision": ("0", "-0"),
    "interval": ("1 month", "30 days"),
    "jsonb": ('{"a": 1.0}', '{"a": 1.00}'),
    "json": ('{"a":1}', '{"a": 1}'),
    "bpchar": ("a", "a "),
    "public.citext": ("a", "A"),
    "timetz": ("12:00+00", "13:00+01"),
    "float8[]": ("{0}", "{-0}"),
    "text": ("", None),
    "text[]": ("{}", None),
    "bytea": ("", None),
    "zoo.pair": ("(,)", None),
    "int4range": ("empty", None),
}
HOSTILE = Path(__file__).with_name("hostile.sql").read_text()
# A call with nothing but constants in an index is the one thing that Postgres itself runs.
CONSTANT = "CREATE INDEX constant ON traps.prey (a) WHERE public.trap()"


async def digest_of(connection: Connection, table: str) -> tuple[int, int]:
    """What reading the content would find for this table, within the transaction that is open."""
    await connection.execute("SET LOCAL search_path = pg_catalog")
    for row in await connection.fetch(load("content_relations")):
        if row["name"] == table:
            found = await connection.fetchrow(row["statement"])
            assert found is not None
            return found["rows"], int(found["digest"])
    raise AssertionError(f"there is no table {table}")


async def test_every_column_of_every_type_counts(clinic: Clinic) -> None:
    async with as_owner(clinic) as owner:
        columns = [row[0] for row in await owner.fetch(COLUMNS)]
        assert len(columns) > 80
        for column in columns:
            async with undone(owner):
                before = await digest_of(owner, "zoo.types")
                change = f"UPDATE zoo.types SET {column} = NULL WHERE id = 7"  # noqa: S608
                await owner.execute(change)
                emptied = await digest_of(owner, "zoo.types")
            assert before[0] == emptied[0]
            assert before[1] != emptied[1], column


@pytest.mark.parametrize("type_", TWINS)
async def test_values_that_are_equal_and_not_the_same(clinic: Clinic, type_: str) -> None:
    digests = []
    async with as_owner(clinic) as owner:
        for value in TWINS[type_]:
            text = "NULL" if value is None else f"'{value}'"
            async with undone(owner):
                await owner.execute(f"CREATE TABLE zoo.twin (value {type_})")
                await owner.execute(f"INSERT INTO zoo.twin VALUES ({text})")  # noqa: S608
                digests.append(await digest_of(owner, "zoo.twin"))
    assert digests[0] != digests[1]


async def test_rows_that_swap_a_value_are_noticed(clinic: Clinic) -> None:
    """The sums of all columns stay the same, and 100 rows would not be noticed by chance."""
    async with as_owner(clinic) as owner, undone(owner):
        before = await digest_of(owner, "public.note")
        for low in range(1, 200, 2):
            await owner.execute(
                "UPDATE public.note n SET words = o.words FROM public.note o "
                "WHERE n.id IN ($1, $1 + 1) AND o.id = 2 * $1 + 1 - n.id",
                20_000 + low,
            )
            assert await digest_of(owner, "public.note") != before
        await owner.execute("UPDATE public.note SET at = at WHERE id < 20000")
        rewritten = await digest_of(owner, "public.note")
        await owner.execute("DELETE FROM public.note WHERE id = 20001")
        assert (await digest_of(owner, "public.note"))[0] == rewritten[0] - 1
        assert before[0] == rewritten[0]


async def test_nothing_of_the_tenant_runs(places: dict[int, Place], store: FileStore) -> None:
    for place in places.values():
        clinic = await provision(place)
        async with as_owner(clinic) as owner:
            await owner.execute(HOSTILE)
            await owner.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public, traps TO PUBLIC")
        result, _ = await dumped(clinic, store)
        assert result.content.tables["traps.prey"].rows == 2
        assert result.content.tables["traps.parted_1"].rows == 2
        assert result.content.tables["public.pg_class"].rows == 0


async def test_the_traps_would_have_been_sprung(places: dict[int, Place]) -> None:
    """What Postgres runs by itself runs as the backup login, which may change nothing."""
    clinic = await provision(places[15])
    async with as_owner(clinic) as owner:
        await owner.execute(HOSTILE)
        await owner.execute(CONSTANT)
        await owner.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC")
    with pytest.raises(UnexpectedDatabaseError) as caught:
        await content_of(clinic)
    assert f"a trap ran as {clinic.roles.backup}, read-only: on" in caught.value.message
    assert isinstance(caught.value.__cause__, asyncpg.RaiseError)
