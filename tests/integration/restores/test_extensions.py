"""Extensions are made before a backup is loaded, as they were, and their own rows come back."""

from pathlib import Path

import msgspec
import pytest

from control_plane.adapters import scratch_examination
from control_plane.adapters.object_stores.files import FileStore
from control_plane.adapters.scratch_examination import Examination
from control_plane.domain.backups import Extension
from tests.integration.restores.restoring import Backup, back_up, drop, restore
from tests.integration.tenant_server.clinic import Place, provision
from tests.integration.tenant_server.postgres_fixture import ADMIN

FILES = {
    "stocked.control": "default_version = '1.1'\nschema = 'stock'\nrequires = 'citext'\n",
    "stocked--1.0.sql": """
        CREATE TABLE item (name public.citext PRIMARY KEY, ours boolean DEFAULT true);
        CREATE SEQUENCE numbers;
        SELECT pg_extension_config_dump('item', 'WHERE NOT ours');
        SELECT pg_extension_config_dump('numbers', '');
        INSERT INTO item VALUES ('built in');
    """,
    "stocked--1.0--1.1.sql": "CREATE TABLE later (id integer);",
}
EXTENSIONS = """
SELECT extname::text, extversion, extnamespace::regnamespace::text FROM pg_extension ORDER BY 1
"""
OWNERS = """
SELECT extname::text, extowner::regrole::text FROM pg_extension
UNION ALL SELECT nspname, nspowner::regrole::text FROM pg_namespace WHERE nspname = 'stock'
"""
PRIVILEGES = """
SELECT relname::text AS name, unnest(relacl)::text AS item FROM pg_class
 WHERE relnamespace = 'stock'::regnamespace
UNION ALL
SELECT nspname, unnest(nspacl)::text FROM pg_namespace WHERE nspname = 'stock'
 ORDER BY 1, 2
"""


def granted(role: str) -> str:
    return (
        f"GRANT USAGE ON SCHEMA stock TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA stock TO {role};"
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA stock TO {role};"
    )


@pytest.fixture
def stocked(places: dict[int, Place]) -> Place:
    """A server whose copy of Postgres is ours, and offers an extension with rows of its own."""
    folder = places[18].server.bin.parent / "share" / "extension"
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return places[18]


async def test_an_old_version_with_rows_of_its_own(
    stocked: Place, store: FileStore, tmp_path: Path
) -> None:
    clinic = await provision(stocked)
    async with clinic.inside() as inside:
        await inside.execute("CREATE EXTENSION citext SCHEMA public")
        await inside.execute("CREATE EXTENSION stocked VERSION '1.0'")
        await inside.execute("INSERT INTO stock.item VALUES ('the tenant''s', false)")
        await inside.execute("SELECT nextval('stock.numbers'), nextval('stock.numbers')")
        await inside.execute(granted(clinic.roles.app) + granted(clinic.roles.backup))
        before = await inside.fetch(EXTENSIONS)
        privileges = await inside.fetch(PRIVILEGES)
    backup = await back_up(clinic, store)
    scratch = await restore(backup, stocked, tmp_path)
    async with scratch.inside() as inside:
        assert await inside.fetch(EXTENSIONS) == before
        assert await inside.fetch(PRIVILEGES) == privileges
        rows = await inside.fetch("SELECT name::text FROM stock.item ORDER BY 1")
        assert [row["name"] for row in rows] == ["built in", "the tenant's"]
        assert await inside.fetchval("SELECT nextval('stock.numbers')") == 3
        # What a tenant may make belongs to the tenant, what it may not to an administrator.
        owners = {row[0]: row[1] for row in await inside.fetch(OWNERS)}
        assert owners["citext"] == clinic.roles.owner
        assert owners["stocked"] == owners["stock"] == ADMIN
        found = await scratch_examination.examine(inside, backup.manifest, backup.roles)
        assert found == Examination([], checked=True)
    await drop(scratch)


async def test_one_that_is_not_offered_in_its_old_version(
    stocked: Place, store: FileStore, tmp_path: Path
) -> None:
    clinic = await provision(stocked)
    async with clinic.inside() as inside:
        await inside.execute("CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION stocked")
        await inside.execute(granted(clinic.roles.backup))
    backup = await back_up(clinic, store)
    older = [Extension(one.name, "0.1", one.schema) for one in backup.manifest.extensions]
    manifest = msgspec.structs.replace(backup.manifest, extensions=older)
    scratch = await restore(Backup(manifest, store), stocked, tmp_path)
    async with scratch.inside() as inside:
        versions = {row[0]: row[1] for row in await inside.fetch(EXTENSIONS)}
    assert versions["stocked"] == "1.1"
    await drop(scratch)
