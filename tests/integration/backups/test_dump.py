"""A dump holds what a session in its snapshot sees, whoever works in the database meanwhile."""

import asyncio
import re

import psutil
import pytest

from control_plane.adapters.database_content import read_content
from control_plane.adapters.dump import DumpProgress, dump_to_store
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.postgres_server import Connection
from control_plane.domain.backups import Content, differences
from tests.integration.backups.dumping import (
    SESSION,
    archive_of,
    as_backup,
    as_owner,
    content_of,
    dumped,
    filled_clinic,
    halfway,
    job_for,
    pg_dumps,
    restored,
)
from tests.integration.tenant_server.clinic import Clinic, Place, provision

# What the wheel with Postgres 18 is built without: ICU and libxml.
OF_DEBIAN = """
CREATE COLLATION public.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE public.debian (
    id integer, a_xml xml, a_blind text COLLATE public.blind, blinds text[] COLLATE public.blind
);
INSERT INTO public.debian
VALUES (1, '<a b="1">text<!-- c --></a>', 'CaSe', '{a,A}'), (2, NULL, 'cAsE', NULL);
"""
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)"
WRITES = (
    "INSERT INTO public.note (id, words) VALUES (1000000 + nextval('zoo.untouched'), 'new')",
    # Rows of its own for each who writes: they never wait for each other in a circle.
    "UPDATE public.note SET words = words || 'x' WHERE id % 1000 = pg_backend_pid() % 1000",
    "DELETE FROM public.note WHERE id = (SELECT min(id) FROM public.note)",
    "INSERT INTO zoo.identity (word) VALUES ('new')",
    "INSERT INTO zoo.parted VALUES ('2023-07-07', 1, 'new')",
)


@pytest.mark.parametrize(("source", "target"), [(15, 15), (18, 18), (15, 18)])
async def test_everything_comes_out_as_it_went_in(
    places: dict[int, Place],
    filled: dict[int, Clinic],
    store: FileStore,
    source: int,
    target: int,
) -> None:
    result, archive = await dumped(filled[source], store)
    async with restored(archive, places[target]) as content:
        assert differences(result.content, content) == []
        assert content.digest == result.content.digest


async def test_xml_and_text_that_compares_loosely(
    places: dict[int, Place], store: FileStore
) -> None:
    clinic = await provision(places[15])
    async with as_owner(clinic) as owner:
        await owner.execute(OF_DEBIAN)
    result, archive = await dumped(clinic, store)
    async with restored(archive, places[15]) as content:
        assert differences(result.content, content) == []
    async with as_owner(clinic) as owner:
        await owner.execute("UPDATE public.debian SET a_blind = 'case' WHERE id = 1")
    assert differences(result.content, await content_of(clinic)) == [
        "table public.debian: 2 rows as it should, but their content differs"
    ]


async def test_the_manifest_learns_what_it_needs(clinic: Clinic, store: FileStore) -> None:
    words: list[str] = []
    result, _ = await dumped(clinic, store, lambda progress: words.append(progress.words))
    server = clinic.place.server
    async with clinic.inside() as inside:
        version = await inside.fetchval("SELECT current_setting('server_version_num')::integer")
        now = await inside.fetchval("SELECT now()")
    assert result.server_version == version
    assert re.match(rf"pg_dump \(PostgreSQL\) {server.version}\.", result.dump_program)
    assert result.snapshot_at < now
    assert result.database_bytes > 10_000_000
    assert (result.locale.encoding, result.locale.provider) == ("UTF8", "c")
    assert (result.locale.collate, result.locale.ctype) == ("C.UTF-8", "C.UTF-8")
    extensions = {extension.name: extension.schema for extension in result.extensions}
    assert extensions == {"citext": "public", "hstore": "public", "plpgsql": "pg_catalog"}
    assert result.content.tables["public.note"].rows == 40_000
    assert not [name for name in result.content.tables if name.startswith("cp_meta.")]
    assert {"zoo.seen", "zoo.counted"}.isdisjoint(result.content.tables)
    tables = len(result.content.tables)
    everything = f"{tables} of {tables} tables read"
    assert f"{result.plain_bytes / 1e6:.0f} MB dumped, {everything}" in words


async def test_who_writes_meanwhile_is_not_in_it(
    places: dict[int, Place], store: FileStore
) -> None:
    clinic = await filled_clinic(places[15])
    before = await content_of(clinic)
    async with as_owner(clinic) as first, as_owner(clinic) as second:
        stop, busy = asyncio.Event(), asyncio.Event()
        writing = [asyncio.create_task(_write(each, stop, busy)) for each in (first, second)]
        await busy.wait()
        result, archive = await dumped(clinic, store)
        stop.set()
        await asyncio.gather(*writing)
    after = await content_of(clinic)
    async with restored(archive, places[15]) as content:
        assert differences(result.content, content) == []
    assert _changed(before, result.content) == _changed(result.content, after)
    assert "table public.note" in _changed(result.content, after)


async def _write(connection: Connection, stop: asyncio.Event, busy: asyncio.Event) -> None:
    while not stop.is_set():
        for statement in WRITES:
            await connection.execute(statement)
        busy.set()


def _changed(before: Content, after: Content) -> set[str]:
    return {difference.partition(":")[0] for difference in differences(before, after)}


async def test_what_is_emptied_meanwhile_is_whole_in_it(
    places: dict[int, Place], store: FileStore
) -> None:
    clinic = await provision(places[15])
    async with as_owner(clinic) as owner, as_owner(clinic) as other:
        await owner.execute(
            "CREATE TABLE public.a_big AS "
            "SELECT i, repeat('x', 300) FROM generate_series(1, 30000) AS i;"
            "CREATE TABLE public.z_small AS SELECT i FROM generate_series(1, 100) AS i"
        )
        emptying: list[asyncio.Task[str]] = []
        reading = asyncio.Event()

        async def empty() -> None:
            # Who has read one table has locked all.
            await reading.wait()
            emptying.append(asyncio.create_task(owner.execute("TRUNCATE public.z_small")))
            while not await other.fetchval(WAITS, owner.get_server_pid()):
                pass

        then = halfway(empty)

        def told(progress: DumpProgress) -> None:
            if progress.content:
                loop.call_soon_threadsafe(reading.set)
            then(progress)

        loop = asyncio.get_running_loop()
        result, archive = await dumped(clinic, store, told)
        await emptying[0]
        assert await other.fetchval("SELECT count(*) FROM public.z_small") == 0
    assert result.content.tables["public.z_small"].rows == 100
    async with restored(archive, places[15]) as content:
        assert differences(result.content, content) == []


async def test_large_objects_of_the_application_are_in_it(
    clinic: Clinic, places: dict[int, Place], store: FileStore
) -> None:
    lent = "FUNCTION pg_catalog.lo_from_bytea(oid, bytea), pg_catalog.lo_create(oid)"
    async with clinic.inside() as inside:
        await inside.execute(f"GRANT EXECUTE ON {lent} TO {clinic.roles.login_a}")
        app = await clinic.app()
        await app.execute("SELECT lo_from_bytea(0, decode(repeat('00ff17', 900000), 'hex'))")
        await app.execute("SELECT lo_create(0), lo_from_bytea(4242, 'short')")
        await app.close()
        try:
            result, archive = await dumped(clinic, store)
            assert result.content.large_objects.rows == 3
            async with restored(archive, places[clinic.place.server.version]) as content:
                assert content.large_objects == result.content.large_objects
            await inside.execute("SELECT lo_put(4242, 1, 'H')")
            assert differences(result.content, await content_of(clinic)) == [
                "large objects: 3 rows as it should, but their content differs"
            ]
        finally:
            await inside.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
            await inside.execute(f"REVOKE EXECUTE ON {lent} FROM {clinic.roles.login_a}")


async def test_nothing_secret_is_where_others_can_read_it(clinic: Clinic, store: FileStore) -> None:
    seen: list[str] = []
    names: set[str] = set()
    async with as_backup(clinic) as address, clinic.inside() as inside:

        async def look() -> None:
            (process,) = pg_dumps()
            seen.extend((" ".join(process.cmdline()), repr(process.environ())))
            query = "SELECT application_name FROM pg_stat_activity WHERE usename = $1"
            names.update(row[0] for row in await inside.fetch(query, clinic.roles.backup))

        job = job_for(clinic, address, store)
        result = await dump_to_store(job, halfway(look))
    assert len(seen) == 2
    assert "--snapshot=" in seen[0]
    assert not [text for text in seen if address.password.reveal() in text]
    assert names == {SESSION}
    stored = b"".join(store.read(job.object_key, result.stored_bytes))
    assert b"PGDMP" not in stored
    assert archive_of(job, result)


async def test_memory_stays_flat(places: dict[int, Place], store: FileStore) -> None:
    clinic = await provision(places[15])
    async with as_owner(clinic) as owner:
        await owner.execute(
            "CREATE TABLE public.big AS "
            "SELECT i, repeat(md5(i::text), 30) AS words FROM generate_series(1, 300000) AS i"
        )
    process = psutil.Process()
    idle = process.memory_info().rss
    most = idle

    def told(progress: DumpProgress) -> None:
        nonlocal most
        del progress
        most = max(most, process.memory_info().rss)

    async with as_backup(clinic) as address:
        result = await dump_to_store(job_for(clinic, address, store), told)
    assert result.plain_bytes > 280_000_000
    assert most - idle < 100_000_000


async def test_sessions_beside_each_other_read_the_same(clinic: Clinic) -> None:
    words: list[str] = []
    async with as_backup(clinic) as address:
        alone = await read_content(address, clinic.database, SESSION, told=words.append)
        together = await read_content(address, clinic.database, SESSION, at_once=4)
    assert alone == together
    tables = len(alone.tables)
    assert words == [f"{done} of {tables} tables read" for done in range(1, tables + 1)]
